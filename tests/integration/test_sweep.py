"""Real sweeps on real Ray and a local MLflow: killed, stopped, shared, widened; each compared with an undisturbed one.

The long forms (five kills, an outage) are commands of their own in tests/acceptance/.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator import run as run_from_python
from tests.support.cli import (
    command_line,
    curves,
    descendants,
    digests,
    drive_sweep,
    free_port,
    kill_all,
    start,
    status,
    tiny_sweep,
    wait_for,
)
from tests.support.s3_server import BUCKET, SECRET, s3_server

TRIALS = 7


@dataclass(frozen=True)
class Finished:
    file: Path
    storage: Path
    home: Path  # of the user who ran it


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("undisturbed")
    file, home = tiny_sweep(folder, epochs=12), folder / "home"  # long enough to be interrupted in the middle
    home.mkdir(mode=0o500)
    events = ("--events", folder / "events.jsonl")
    drive_sweep("run", file, "--storage", folder / "runs", "--quiet", *events, environment={"HOME": str(home)})
    return Finished(file, folder / "runs", home)


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def runs(storage: Path) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{storage}/mlflow.db")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, max_results=1000))


def by_role(storage: Path) -> dict[str, list[Any]]:
    roles: dict[str, list[Any]] = {}
    for run in runs(storage):
        roles.setdefault(run.data.tags["drive.role"], []).append(run)
    return roles


def assert_same_as(undisturbed: Finished, storage: Path) -> None:
    assert digests("tiny", storage) == digests("tiny", undisturbed.storage)
    assert curves(storage) == curves(undisturbed.storage)
    roles = by_role(storage)
    assert len(roles["sweep"]) == 1
    keys = [run.data.tags["drive.trial_key"] for run in roles["trial"]]
    assert len(keys) == len(set(keys)) == TRIALS
    assert {run.info.status for run in runs(storage)} == {"FINISHED"}


def test_every_trial_finishes_and_warm_ups_are_trained_once(undisturbed: Finished) -> None:
    answer = status("tiny", undisturbed.storage)
    assert (answer["total"], answer["finished"], answer["tracking_pending"]) == (TRIALS, TRIALS, 0)
    assert [(one["state"], one["epochs"], one["trained_epochs"]) for one in answer["warmups"]] == [("finished", 2, 2)]
    assert_same_as(undisturbed, undisturbed.storage)
    (warmup,) = by_role(undisturbed.storage)["warmup"]
    assert warmup.info.status == "FINISHED"


def test_events_tell_the_course_of_the_sweep(undisturbed: Finished) -> None:
    events = [json.loads(line) for line in (undisturbed.file.parent / "events.jsonl").read_text().splitlines()]
    assert {one["sweep"] for one in events} == {"tiny"}
    assert [one["time"] for one in events] == sorted(one["time"] for one in events)
    assert (events[0]["event"], events[0]["waiting"]) == ("sweep_started", TRIALS)
    assert (events[-1]["event"], events[-1]["exit_code"], events[-1]["finished"]) == ("sweep_finished", 0, TRIALS)
    by_event: dict[str, list[Any]] = {}
    for one in events:
        by_event.setdefault(one["event"], []).append(one)
    (warmup,) = by_event["warmup_finished"]
    assert warmup["epochs"] == 2
    trials = {trial["key"]: trial for trial in status("tiny", undisturbed.storage)["trials"]}
    assert {one["key"] for one in by_event["trial_started"]} == trials.keys()
    assert {one["key"]: one["val_accuracy"] for one in by_event["trial_finished"]} == {
        key: trial["metrics"]["val/accuracy"] for key, trial in trials.items()
    }
    assert all(one["seconds"] == trials[one["key"]]["seconds"] > 0 for one in by_event["trial_finished"])
    newest = by_event["recommendation_changed"][-1]
    (recommendation,) = status("tiny", undisturbed.storage)["recommendations"]
    assert newest["configuration"] == recommendation["configuration"]
    assert set(by_event) == {
        "sweep_started",
        "warmup_started",
        "warmup_finished",
        "trial_started",
        "trial_finished",
        "recommendation_changed",
        "sweep_finished",
    }


def test_the_sweeps_run_shows_what_was_seen_in_its_data(undisturbed: Finished) -> None:
    from mlflow import MlflowClient

    (run,) = by_role(undisturbed.storage)["sweep"]
    client = MlflowClient(f"sqlite:///{undisturbed.storage}/mlflow.db")
    assert {"data.json", "data.png", "report.html"} <= {one.path for one in client.list_artifacts(run.info.run_id)}
    log = (undisturbed.storage / "sweeps" / "tiny" / "sweep.log").read_text()
    assert "data: the preflight failed" not in log


def test_finished_sweep_runs_again_without_ray_or_mlflow(undisturbed: Finished) -> None:
    before = {path: path.stat().st_mtime_ns for path in undisturbed.storage.rglob("*") if path.is_file()}
    answer = drive_sweep("run", undisturbed.file, "--storage", undisturbed.storage)
    assert "nothing to do" in answer.stderr
    assert {path: path.stat().st_mtime_ns for path in undisturbed.storage.rglob("*") if path.is_file()} == before


@pytest.mark.long
def test_unshared_warm_ups_give_the_same_bits_and_curves(undisturbed: Finished, storage: Path) -> None:
    """Run from Python, which runs the same command."""
    sweep = run_from_python(undisturbed.file, storage=str(storage), settings={"share_warmups": False}, quiet=True)
    assert list(sweep.trials().state) == ["finished"] * TRIALS
    assert digests("tiny", storage) == digests("tiny", undisturbed.storage)
    assert curves(storage) == curves(undisturbed.storage)
    assert not list(storage.glob("warmups/*/*"))
    assert not list(storage.glob("trials/*/warmup/*.safetensors"))


@pytest.mark.long
def test_interrupted_sweep_is_completed(undisturbed: Finished, storage: Path) -> None:
    process = start("run", undisturbed.file, "--storage", storage)
    wait_for(lambda: [*storage.glob("trials/*/checkpoint"), *storage.glob("warmups/*/epoch-*")], every_s=0.02)
    assert interrupted(process, storage) == "KILLED"
    drive_sweep("resume", "tiny", "--storage", storage, "--quiet")
    assert_same_as(undisturbed, storage)


@pytest.mark.long
def test_sweep_killed_with_ray_is_completed(undisturbed: Finished, storage: Path) -> None:
    process = start("run", undisturbed.file, "--storage", storage)
    wait_for(lambda: len(list(storage.glob("trials/*/result.json"))) >= 2)
    kill_all(process)
    kept = {path: path.read_bytes() for path in storage.glob("trials/*/result.json")}
    assert 2 <= len(kept) < TRIALS
    answer = status("tiny", storage)
    assert not answer["driver_alive"]
    assert answer["running"] == 0
    drive_sweep("resume", "tiny", "--storage", storage, "--quiet")
    assert_same_as(undisturbed, storage)
    assert {path: path.read_bytes() for path in kept} == kept


@pytest.mark.long
def test_ctrl_c_after_the_last_trial_loses_nothing(undisturbed: Finished, storage: Path) -> None:
    process = start("run", undisturbed.file, "--storage", storage)
    wait_for(lambda: len(list(storage.glob("trials/*/result.json"))) == TRIALS)
    assert interrupted(process, storage) == "FINISHED"
    drive_sweep("resume", "tiny", "--storage", storage, "--quiet")
    assert_same_as(undisturbed, storage)


def interrupted(process: subprocess.Popen[str], storage: Path) -> str:
    """What the sweep's run is in MLflow after Ctrl-C; no run is left RUNNING."""
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    (sweep,) = by_role(storage)["sweep"]
    assert "RUNNING" not in {run.info.status for run in runs(storage)}
    return str(sweep.info.status)


@pytest.mark.long
def test_killed_sweep_on_an_object_store_resumes_exactly(undisturbed: Finished, tmp_path: Path) -> None:
    """The same models as those of a sweep that nobody disturbed."""
    from mlflow import MlflowClient

    MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").create_experiment("drive-sweep", str(tmp_path / "artifacts"))
    with s3_server(tmp_path) as store:
        storage = f"s3://{BUCKET}/runs"
        process = start(
            "run",
            undisturbed.file,
            *("--storage", storage, "--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db"),
            *("--set", "resources.max_concurrent=1"),  # so that the kill comes before the end
            environment=store.environment,
        )
        wait_for(lambda: len(store.finished("runs")) >= 2, timeout_s=300, every_s=0.3)
        kill_all(process)
        kept = store.finished("runs")
        assert 2 <= len(kept) < TRIALS
        answer = status("tiny", storage, store.environment)
        assert (answer["driver_alive"], answer["running"]) == (False, 0)
        drive_sweep("resume", "tiny", "--storage", storage, "--quiet", environment=store.environment)
        assert digests("tiny", storage, store.environment) == digests("tiny", undisturbed.storage)
        assert store.curves("runs") == curves(undisturbed.storage)
        assert kept.items() <= store.finished("runs").items()
        log = drive_sweep("logs", "tiny", "--storage", storage, environment=store.environment).stdout
        assert log.count(" run: ") == 2
        objects = store.objects()
        assert not any(SECRET.encode() in store.content(key) for key in objects)
        assert not any(key.endswith(("/driver.json", "/stop", "/checkpoint")) for key in objects)
    roles = by_role(tmp_path)
    assert [len(roles[role]) for role in ("sweep", "trial", "warmup")] == [1, TRIALS, 1]
    assert {run.info.status for run in runs(tmp_path)} == {"FINISHED"}


@pytest.mark.long
def test_trial_of_a_killed_worker_goes_on_from_its_checkpoint(tmp_path: Path, storage: Path) -> None:
    file = tiny_sweep(tmp_path, epochs=30)
    process = start("run", file, "--storage", storage, "--set", "search.warmup_epochs=[0]")

    def worker_in_mid_trial() -> int | None:
        if len(list(storage.glob("trials/*/checkpoint"))) < 2:  # both slots are in mid-trial
            return None
        busy = [pid for pid in descendants(process.pid) if command_line(pid).startswith("ray::ImplicitFunc")]
        return busy[0] if busy else None

    os.kill(wait_for(worker_in_mid_trial), signal.SIGKILL)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "its process was lost" in output
    attempts = [json.loads(path.read_text())["attempt"] for path in storage.glob("trials/*/result.json")]
    assert sorted(attempts) == [1, 1, 2]
    whole = drive_sweep("trial", file, "--storage", tmp_path / "again", "--set", "search.warmup_epochs=[0]", "--index", 0)
    assert f"model_sha256 {digests('tiny', storage)['w00-i001-s0.9-r0']}" in whole.stdout


@pytest.mark.extended
@pytest.mark.parametrize(
    "number", [signal.SIGTERM, *(pytest.param(one, marks=pytest.mark.long) for one in (signal.SIGHUP, signal.SIGINT))]
)
def test_the_server_of_the_ui_ends_with_it(undisturbed: Finished, number: signal.Signals) -> None:
    process = start("ui", "tiny", "--storage", undisturbed.storage, "--port", free_port())
    assert process.stdout is not None
    link = process.stdout.readline()
    assert "/#/experiments/1/runs/" in link
    servers = descendants(process.pid)
    assert servers
    os.kill(process.pid, number)
    assert process.wait(timeout=30) == 128 + number
    wait_for(lambda: not any(Path("/proc", str(pid)).exists() for pid in servers), 30)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Address of a running Ray head with token authentication, and the environment that opens it."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    scratch = tempfile.mkdtemp(prefix="ray-")  # sockets have short paths
    ray = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--num-cpus=2", f"--port={port}"]
    ray += ["--node-ip-address=127.0.0.2", "--include-dashboard=false", "--disable-usage-stats", f"--temp-dir={scratch}"]
    environment = os.environ | token | {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "1"}
    with open(tmp_path / "head.log", "w") as log:
        head = subprocess.Popen(ray, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(lambda: "block forever" in (tmp_path / "head.log").read_text())
        yield f"127.0.0.2:{port}", token
    finally:
        for pid in [*descendants(head.pid), head.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        head.wait()
        shutil.rmtree(scratch, ignore_errors=True)


@pytest.mark.long
def test_a_sweep_runs_on_an_existing_cluster_with_its_token(
    undisturbed: Finished, storage: Path, cluster: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, token = cluster
    for name, value in token.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RAY_ADDRESS", address)
    drive_sweep("run", undisturbed.file, "--storage", storage, "--quiet")
    assert_same_as(undisturbed, storage)


def test_dead_cluster_address_is_reported_at_once(undisturbed: Finished, storage: Path) -> None:
    answer = drive_sweep("run", undisturbed.file, "--storage", storage, "--address", "127.0.0.1:9", expect=3)
    assert "cannot connect to the Ray cluster at 127.0.0.1:9" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.long
def test_a_trial_that_never_fits_on_this_machine_is_refused(undisturbed: Finished, storage: Path) -> None:
    cpus = "resources.cpus_per_trial=4096"
    answer = drive_sweep("run", undisturbed.file, "--storage", storage, "--set", cpus, "--quiet", expect=3)
    assert "resources.cpus_per_trial is 4096, this machine has" in answer.stderr
    assert "RUNNING" not in {run.info.status for run in runs(storage)}


@pytest.mark.long
def test_trial_is_stopped_and_resumed_while_others_go_on(undisturbed: Finished, storage: Path) -> None:
    process = start("run", undisturbed.file, "--storage", storage)
    trials = wait_for(lambda: storage.joinpath("sweeps/tiny/state.json").exists() and status("tiny", storage)["trials"])
    last = next(trial["key"] for trial in trials if trial["name"] == "w02-i001-s0.9-r0")
    drive_sweep("stop", "tiny", "--trial", last, "--storage", storage)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 130, output
    answer = status("tiny", storage)
    assert (answer["finished"], answer["stopped"]) == (TRIALS - 1, 1)
    drive_sweep("resume", "tiny", "--trial", last, "--storage", storage, "--quiet")
    assert_same_as(undisturbed, storage)


def test_a_plain_run_leaves_no_login_in_the_home(undisturbed: Finished) -> None:
    assert not [path for path in undisturbed.home.rglob("*") if "auth" in path.name]


@pytest.mark.long
def test_diverging_warmup_fails_its_trials_alone(tmp_path: Path, storage: Path) -> None:
    file = tiny_sweep(tmp_path)
    answer = drive_sweep("run", file, "--storage", storage, "--set", "warmup.lr=1e30", "--quiet", expect=1)
    state = status("tiny", storage)
    assert (state["finished"], state["failed"]) == (3, 4)
    assert "the training loss became nan" in answer.stderr
    assert "Traceback" not in answer.stderr
    failed = [trial for trial in state["trials"] if trial["state"] == "failed"]
    assert all("its warm-up warmup-r0-" in trial["error"] for trial in failed)
    assert {run.info.status for run in by_role(storage)["trial"]} == {"FINISHED", "FAILED"}


@pytest.mark.long
def test_a_widened_grid_runs_only_the_new_trials(undisturbed: Finished, tmp_path: Path, storage: Path) -> None:
    shutil.copytree(undisturbed.storage, storage, ignore=shutil.ignore_patterns("mlflow.db", "artifacts"))
    file = tmp_path / "wider.yaml"
    file.write_text(undisturbed.file.read_text().replace("[0, 1, 2]", "[0, 1, 2, 3]"))
    before = {path: path.stat().st_mtime_ns for path in storage.glob("trials/*/result.json")}
    plan = json.loads(drive_sweep("plan", file, "--storage", storage, "--json").stdout)
    assert (plan["trials"], plan["reused"], plan["added"]) == (TRIALS + 2, TRIALS, 2)
    drive_sweep("run", file, "--storage", storage, "--quiet")
    after = {path: path.stat().st_mtime_ns for path in storage.glob("trials/*/result.json")}
    assert len(after) == TRIALS + 2
    assert {path: after[path] for path in before} == before
    (warmup,) = status("tiny", storage)["warmups"]
    assert (warmup["epochs"], warmup["trained_epochs"]) == (3, 1)


@pytest.mark.long
def test_lost_and_damaged_snapshots_are_reported_and_rebuilt(undisturbed: Finished, storage: Path) -> None:
    shutil.copytree(undisturbed.storage, storage, ignore=shutil.ignore_patterns("mlflow.db", "artifacts"))
    first, second = sorted(storage.glob("warmups/*/epoch-*"))
    first.unlink()
    second.write_bytes(second.read_bytes()[:-100])
    for path in storage.glob("trials/*/result.json"):
        path.unlink()
    drive_sweep("resume", "tiny", "--storage", storage, "--quiet")
    assert_same_as(undisturbed, storage)
    assert "snapshot of epoch 2 is damaged and is computed again" in drive_sweep("logs", "tiny", "--storage", storage).stdout
