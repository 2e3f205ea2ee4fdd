"""No secret in what is recorded, sent or shown: planted in every source, and searched for in every byte that is written."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import requests
import zstandard

from orchestrator import cli
from orchestrator.errors import EXIT_BUG
from orchestrator.scheduling.tune_adapter import withhold_keys
from orchestrator.tracking.ui_server import serve
from tests.support.cli import command_line, descendants, drive_sweep, start, tiny_sweep
from tests.support.mlflow_stores import new_target
from tests.support.ray_nodes import RayNodes
from trainables.errors import FailureKind
from trainables.records.failure_record import publish_failure
from trainables.runtime.secrets import without_secrets

MARK = "zq7marked"
PLANTED = {
    "MLFLOW_TRACKING_USERNAME": "somebody",
    "MLFLOW_TRACKING_PASSWORD": f"{MARK}-password",
    "MLFLOW_TRACKING_TOKEN": f"{MARK}-token",
    "AWS_ACCESS_KEY_ID": f"{MARK}-key-id",
    "AWS_SECRET_ACCESS_KEY": f"{MARK}/secret+key",
    "AWS_SESSION_TOKEN": f"{MARK}-session",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": f"{MARK}-" + "0" * 32,
    "HF_TOKEN": f"{MARK}-hub",
    "https_proxy": f"http://user:{MARK}-proxy@127.0.0.1:9",
}
MODULE = """
import os
from pathlib import Path

import torch

Path("environment").write_text(repr(dict(os.environ)))
MARK = "".join(["{start}", "{end}"])  # the module is kept with the trials, and does not hold the mark itself
URL = f"https://user:{{MARK}}-url@host/x?X-Amz-Signature={{MARK}}-signature&b=1"


def network(image_shape, num_classes):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, num_classes))


def loss(scores, labels):
    raise RuntimeError(f"cannot reach {{URL}} with {{dict(os.environ)}}")
"""
SWEEP = """
name: secrets
dataset: {name: digits, limit: 50, validation: 0.2}
model: {module: own.network}
search: {warmup_epochs: [0], prune_iterations: [1], sparsity: [0.5], seed: [0, 1]}
training: {epochs: 1, batch_size: 20%s}
resources: {cpus_per_trial: 1}
"""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://user:pass@host:80/a@b", "http://...@host:80/a@b"),
        ("s3://b/k?X-Amz-Signature=abc&part=1", "s3://b/k?X-Amz-Signature=...&part=1"),
        ("GET /x?access_token=abc HTTP", "GET /x?access_token=... HTTP"),
        ("Authorization: Bearer abcdefghijk", "Authorization: Bearer ..."),
        ("Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic ..."),
        ("the key is sup3r-secret!", "the key is ..."),
        ("user@host and http://host/path", "user@host and http://host/path"),
        ("tokens: 5, batch?size=3", "tokens: 5, batch?size=3"),
    ],
)
def test_secrets_in_texts_are_dots(text: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET", "sup3r-secret!")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/home/host/path")  # a place, no secret
    assert without_secrets(text) == shown
    assert without_secrets(shown) == shown


def test_record_of_a_failure_holds_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    class Files:
        key, attempt = "k", 1
        content = b""

        def publish(self, name: str, content: bytes) -> None:
            self.content = content

    files: Any = Files()
    monkeypatch.setenv("DATABASE_PASSWORD", f"{MARK}-database")
    publish_failure(files, FailureKind.CODE, f"http://u:{MARK}@h", f"Traceback\n  {MARK}-database")
    assert MARK.encode() not in files.content
    assert b"http://...@h" in files.content


def test_report_of_a_bug_shows_no_secret(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(options: object) -> int:
        raise RuntimeError(f"cannot reach http://u:{MARK}@h with {os.environ['DATABASE_PASSWORD']}")

    monkeypatch.setenv("DATABASE_PASSWORD", f"{MARK}-database")
    monkeypatch.setattr(cli, "_function", lambda options: fail)
    assert cli.main(["status", "s"]) == EXIT_BUG
    shown = capsys.readouterr().err
    assert "cannot reach http://...@h with ..." in shown
    assert MARK not in shown


def test_tune_hands_no_keys_to_command_lines_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    class_cache = import_module("ray.tune.execution.class_cache")
    monkeypatch.setattr(class_cache, "ENV_VARS_TO_PROPAGATE", class_cache.ENV_VARS_TO_PROPAGATE | {"AWS_SESSION_TOKEN"})
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", f"{MARK}-key")
    withhold_keys()
    assert not [name for name in class_cache.ENV_VARS_TO_PROPAGATE if re.search("AWS|SECRET|TOKEN|PASSWORD", name)]


def found(folder: Path) -> list[str]:
    """The files below a folder that hold the mark, also in compressed ones."""
    hits = []
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            content = file.read_bytes()
            if file.name.endswith(".zst"):
                content = zstandard.decompress(content)
            if MARK.encode() in content:
                hits.append(str(file))
    return hits


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.process
def test_no_command_writes_or_shows_a_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    ray_files = Path(tempfile.mkdtemp(prefix="trust-", dir="/tmp"))  # a short path, for sockets
    request.addfinalizer(lambda: shutil.rmtree(ray_files, ignore_errors=True))
    monkeypatch.setenv("RAY_TMPDIR", str(ray_files))
    Path("own.py").write_text(MODULE.format(start=MARK[:3], end=MARK[3:]))
    Path("good.yaml").write_text(SWEEP % "")
    Path("bad.yaml").write_text((SWEEP % ", loss: {module: own.loss}").replace("secrets", "failing"))
    outputs, lines = [], set()
    run = start("run", "good.yaml", "--storage", "runs", "--events", "events.jsonl")
    while run.poll() is None:
        lines |= {command_line(pid) for pid in (run.pid, *descendants(run.pid))}
        time.sleep(0.2)
    assert run.stdout is not None
    outputs.append(run.stdout.read())
    assert run.returncode == 0, outputs
    environment = Path("environment").read_text()  # of the users' code
    assert not [name for name in PLANTED if name.startswith("MLFLOW") and PLANTED[name] in environment]
    Path("environment").unlink()
    failing = drive_sweep("run", "bad.yaml", "--storage", "runs", expect=2)  # the checks before training
    commands: list[tuple[Any, ...]] = [
        ("status", "secrets"),
        ("status", "secrets", "--json"),
        ("logs", "secrets"),
        ("report", "secrets"),
        ("doctor",),
        ("report", "secrets", "--output", "report.html"),
    ]
    answers = [failing, *(drive_sweep(*one, "--storage", "runs", expect=None) for one in commands)]
    outputs += [text for answer in answers for text in (answer.stdout, answer.stderr)]
    Path("environment").unlink(missing_ok=True)
    assert "cannot reach https://...@host/x?X-Amz-Signature=..." in failing.stderr
    assert not [line for line in lines if MARK in line]
    assert not [output for output in outputs if MARK in output]
    assert found(tmp_path) == []
    assert found(ray_files) == []


@pytest.mark.long
def test_submitted_sweep_hands_no_secret_to_the_cluster(tmp_path: Path) -> None:
    file = tiny_sweep(tmp_path)
    planted = {name: value for name, value in PLANTED.items() if not name.startswith("RAY_")}
    with RayNodes(workers=1) as cluster, serve(new_target(tmp_path / "mlflow"), port=0) as tracking_uri:
        submit = ("submit", file, "--storage", tmp_path / "shared", "--tracking-uri", tracking_uri, "--wait")
        who = planted | cluster.environment
        answer = drive_sweep(*submit, "--address", cluster.api, timeout_s=600, environment=who)
        token = Path(cluster.environment["RAY_AUTH_TOKEN_PATH"]).read_text()
        jobs = requests.get(f"{cluster.api}/api/jobs/", headers={"Authorization": f"Bearer {token}"}, timeout=60).text
        lines = [command_line(pid) for node in cluster.nodes for pid in node.processes()]
        files = [*found(tmp_path), *found(cluster.folder)]
    assert "tiny" in jobs
    assert lines
    assert [text for text in (jobs, answer.stdout, answer.stderr, *lines) if MARK in text] == []
    assert files == []
