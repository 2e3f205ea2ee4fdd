"""A real cluster of a head and two worker nodes, used from outside over the Jobs API with a token: who is let in, and the
life of a sweep there, compared with a trial that runs by itself.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.tracking.ui_server import serve
from tests.support.cli import Answer, drive_sweep, start, tiny_sweep, wait_for
from tests.support.mlflow_stores import new_target
from tests.support.ray_nodes import RayNodes, free_ports

SWEEP = """\
name: slow
dataset: {{name: digits, limit: 300}}
model: {{module: nets.slow.tiny}}
modules_path: {folder}
search: {{warmup_epochs: [0, 1], training.epochs: [2, 60]}}
sparsity: 0.9
prune_iterations: 2
training: {{batch_size: 50, lr: 0.1}}
baseline: none
precision: fp32
resources: {{device: cpu, cpus_per_trial: 1}}
checkpoint_seconds: 1
"""
NETWORK = """\
import time
from pathlib import Path

import trainables
from torch import nn

from .channels import CHANNELS


class Slow(nn.Sequential):
    def forward(self, images):
        if Path({slow!r}).exists():  # long trials take two minutes then, and can be stopped on the way
            time.sleep(0.3)
        return super().forward(images)


def tiny(image_shape, num_classes):
    Path({seen!r}, __file__.replace("/", "|")).write_text(trainables.__file__)
    convolution = nn.Conv2d(image_shape[0], CHANNELS, 3, padding=1)
    return Slow(convolution, nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * CHANNELS, num_classes))
"""
TRIALS = 4
pytestmark = pytest.mark.extended


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayNodes]:
    with RayNodes(workers=2) as nodes:
        yield nodes


def test_only_the_right_token_at_the_right_address_is_let_in(cluster: RayNodes, tmp_path: Path) -> None:
    nobody = {"HOME": str(tmp_path), "RAY_AUTH_MODE": "", "RAY_AUTH_TOKEN_PATH": "", "RAY_AUTH_TOKEN": ""}
    for token, message in (("", "Missing authentication token"), ("wrong" * 8, "Invalid authentication token")):
        who = {name: value for name, value in (nobody | {"RAY_AUTH_TOKEN": token}).items() if value}
        answer = drive_sweep("list", "--address", cluster.api, expect=3, environment=who)
        (line,) = answer.stderr.splitlines()
        assert line.startswith(f"drive-sweep: the cluster at {cluster.api} requires its token: {message}; export RAY_AUTH_MODE")
        assert "wrong" not in line
    (port,) = free_ports(1)
    answer = drive_sweep("list", "--address", f"http://127.0.0.1:{port}", expect=3, environment=cluster.environment)
    assert answer.stderr.startswith(f"drive-sweep: cannot connect to http://127.0.0.1:{port}: Connection refused; give ")
    answer = drive_sweep("list", environment=cluster.environment | {"RAY_API_SERVER_ADDRESS": cluster.api}, expect=0)
    assert len(answer.stdout.splitlines()) == 1  # the head of an empty table


def test_a_sweep_lives_on_a_cluster(cluster: RayNodes, tmp_path: Path) -> None:
    """Its client is interrupted, its job is stopped and resumed; digests, nodes, runs and what is kept."""
    seen, nets, slow = tmp_path / "seen", tmp_path / "nets", tmp_path / "slow"
    seen.mkdir()
    nets.mkdir()
    slow.touch()
    (nets / "__init__.py").write_text("")
    (nets / "channels.py").write_text("CHANNELS = 8\n")
    (nets / "slow.py").write_text(NETWORK.format(seen=str(seen), slow=str(slow)))
    file = tmp_path / "slow.yaml"
    file.write_text(SWEEP.format(folder=tmp_path))
    alone, shared = tmp_path / "alone", tmp_path / "shared"

    def cluster_command(*arguments: object, expect: int = 0) -> Answer:
        return command_on(cluster, *arguments, expect=expect)

    with serve(new_target(tmp_path / "mlflow"), port=0) as tracking_uri:
        submit = ("submit", file, "--storage", shared, "--tracking-uri", tracking_uri)
        client = start(*submit, "--wait", "--address", cluster.api, environment=cluster.environment)
        wait_for(lambda: list(shared.glob("trials/*/result.json")), timeout_s=600)
        client.send_signal(signal.SIGINT)
        output, _ = client.communicate(timeout=60)
        assert client.returncode == 130, output
        assert "is still running; `drive-sweep logs slow -f --address" in output.splitlines()[-1]

        answer = cluster_command(*submit, expect=3)
        (job,) = re.findall(r"is being run by job (slow-\w{6});", answer.stderr)
        answer = cluster_command("stop", "slow")
        assert f"job {job} STOPPED (exit code 143)" in answer.stderr
        assert json.loads((shared / "sweeps/slow/state.json").read_text())["driver"] == {}, "the driver was killed"
        kept = {path: path.stat().st_mtime_ns for path in shared.glob("trials/*/result.json")}
        assert 0 < len(kept) < TRIALS
        assert statuses(tracking_uri) == {"KILLED", "FINISHED"}

        slow.unlink()
        by_itself = start("trial", file, "--index", 2, "--storage", alone)
        answer = cluster_command("resume", "slow", "--wait", "--json")
        state = json.loads(answer.stdout)
        assert (state["state"], state["exit_code"]) == ("SUCCEEDED", 0)
        assert state["job"] != job
        assert f"{len(kept)} finished and kept" in answer.stderr
        assert {path: path.stat().st_mtime_ns for path in kept} == kept
        assert statuses(tracking_uri) == {"FINISHED"}
        output, _ = by_itself.communicate(timeout=600)
        assert by_itself.returncode == 0, output
        assert len(models(shared)) == TRIALS
        assert len(models(alone)) == 1
        assert models(alone).items() <= models(shared).items()

    answer = cluster_command("status", "slow", "--json")
    assert json.loads(answer.stdout)["finished"] == TRIALS
    assert f"{TRIALS} of {TRIALS} trials finished" in cluster_command("logs", "slow", "-f").stdout
    listed = json.loads(cluster_command("list", "--json").stdout)
    assert [(one["sweep"], one["state"], one["exit_code"]) for one in listed] == [
        ("slow", "SUCCEEDED", 0),
        ("slow", "STOPPED", 143),
    ]
    on_nodes = {name.replace("|", "/"): Path(seen, name).read_text() for name in os.listdir(seen)}
    del on_nodes[str(nets / "slow.py")]  # of the trial by itself
    for node in cluster.workers:
        assert any(name.startswith(f"{node.log.parent}/") for name in on_nodes), f"nothing ran on {node.address}"
    for custom, code in on_nodes.items():
        assert custom.removesuffix("own/nets/slow.py") == code.removesuffix("trainables/__init__.py"), (
            "not the code that was sent"
        )


@pytest.mark.long
def test_finished_sweep_is_examined_and_submitted_again(cluster: RayNodes, tmp_path: Path) -> None:
    file = tiny_sweep(tmp_path)
    with serve(new_target(tmp_path / "mlflow"), port=0) as tracking_uri:
        submit = ("submit", file, "--storage", tmp_path / "shared", "--tracking-uri", tracking_uri)
        command_on(cluster, *submit, "--wait")
        kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("shared/trials/*/result.json")}
        assert kept

        answer = command_on(cluster, "doctor", *submit[1:], "--json", expect=3)  # it finds that the GPUs do not exist
        checked = [(check["check"], check["message"].split(":")[0]) for check in json.loads(answer.stdout) if check["ok"]]
        assert all(("storage", f"node {node.address}") in checked for node in cluster.workers), checked

        answer = command_on(cluster, *submit, "--wait")
        assert "sweep 'tiny' is finished; nothing to do" in answer.stdout
        assert "INFO" not in answer.stdout + answer.stderr
        assert "nothing to do" in command_on(cluster, "logs", "tiny", "-f").stdout
        assert {path: path.stat().st_mtime_ns for path in kept} == kept


def command_on(cluster: RayNodes, *arguments: object, expect: int = 0) -> Answer:
    return drive_sweep(*arguments, "--address", cluster.api, expect=expect, timeout_s=600, environment=cluster.environment)


def models(storage: Path) -> dict[str, str]:
    """Trial key -> model_sha256 of the finished trials."""
    results = {path.parent.name: json.loads(path.read_text()) for path in storage.glob("trials/*/result.json")}
    return {key: result["model_sha256"] for key, result in results.items()}


def statuses(tracking_uri: str) -> set[str]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return {run.info.status for run in client.search_runs(experiments)}
