"""A sweep against a tracking server as a team has it: what MLflow shows, and who sees its login."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from orchestrator.tracking.client import TrackingTarget
from orchestrator.tracking.runs import STORAGE
from tests.support.cli import command_line, descendants, drive_sweep, start, tiny_sweep, wait_for
from tests.support.mlflow_stores import Content, compare, timeless
from tests.support.tracking_server import DATABASE_PASSWORD, PASSWORD, S3_SECRET, Server, tracking_server, why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "it can run")

SECRETS = (PASSWORD.encode(), S3_SECRET.encode())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    for one in (folder, *folder.parents):  # pytest keeps them to root; PostgreSQL runs as somebody else
        if one == Path(tempfile.gettempdir()):
            break
        one.chmod(0o755)
    with tracking_server(folder) as running:
        yield running


@pytest.mark.extended
def test_server_refuses_missing_logins_and_other_names(server: Server) -> None:
    name, password = server.login.values()

    def answer(login: tuple[str, str] | None, host: str = "127.0.0.1:1") -> int:
        search = f"{server.uri}/api/2.0/mlflow/experiments/search"
        headers = {"Host": host}
        return requests.post(search, json={"max_results": 5}, auth=login, headers=headers, timeout=60).status_code

    assert [answer(None), answer((name, "wrong")), answer((name, password))] == [401, 401, 200]
    assert answer((name, password), host="evil.example") == 403


def test_no_password_stands_on_a_command_line_of_the_server(server: Server) -> None:
    lines = wait_for(lambda: [line for line in map(command_line, [server.pid, *descendants(server.pid)]) if line])
    assert any("uvicorn" in line and "--workers 2" in line and "--loop uvloop" in line for line in lines), lines
    assert not [line for line in lines if PASSWORD in line or S3_SECRET in line or DATABASE_PASSWORD in line]


@pytest.mark.long
def test_wrong_login_is_reported_and_nothing_is_lost(server: Server, tmp_path: Path) -> None:
    sweep = [tiny_sweep(tmp_path), "--set", "search.warmup_epochs=[0]", "--set", "search.prune_iterations=[1]"]
    wrong = server.login | {"MLFLOW_TRACKING_PASSWORD": "not-this-one"}
    place = ["--name", "refused", "--storage", tmp_path / "runs", "--tracking-uri", server.uri]
    answer = drive_sweep("run", *sweep, *place, environment=wrong)
    assert re.search(r"MLflow: \d+ events could not be sent \(.*(credential|login|auth|401)", answer.stderr, re.IGNORECASE)
    state = drive_sweep("sync", "refused", "--storage", tmp_path / "runs", environment=wrong, expect=3)
    assert "MLFLOW_TRACKING_USERNAME" in state.stderr
    assert "not-this-one" not in answer.stderr + state.stderr
    drive_sweep("sync", "refused", "--storage", tmp_path / "runs", environment=server.login)


@pytest.mark.extended
def test_sweep_on_a_server_leaks_no_login(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = tmp_path / "remote"
    setting = ["--set", "tracking.experiment=watched", "--tracking-uri", server.uri]
    slots = ["--set", "resources.max_concurrent=1"]
    process = start("run", tiny_sweep(tmp_path), "--storage", remote, *setting, *slots, environment=server.login)
    workers = wait_for(lambda: [pid for pid in descendants(process.pid) if "ray::" in command_line(pid)])
    leaks = readable_secrets(process.pid)
    folders = session_folders(process.pid)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert workers
    assert leaks == []
    assert folders
    assert secrets_in([remote, *folders]) == []
    assert not [secret for secret in SECRETS if secret in output.encode()]

    for name, value in server.login.items():
        monkeypatch.setenv(name, value)
    shown = Content(TrackingTarget(uri=server.uri, experiment="watched", artifact_root=None)).plain(ids=False)
    assert {run["status"] for run in shown["runs"]} == {"FINISHED"}
    assert len(shown["models"]) == 7
    assert drive_sweep("ui", "tiny", "--storage", remote, timeout_s=60).stdout.startswith(f"{server.uri}/#/experiments/")
    links = drive_sweep("ui", "tiny", "--print-links", "--storage", remote, timeout_s=60).stdout
    names = [line.partition(": ")[0] for line in links.splitlines()]
    assert names == [
        "the sweep's run",
        "its report",
        "trials, best first",
        "compare at 0.9",
        "all sweeps",
        "model tiny-convnet",
    ]


@pytest.mark.long
def test_sweep_shows_what_a_local_one_shows(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, local, setting = tiny_sweep(tmp_path), tmp_path / "local", ["--set", "tracking.experiment=compared"]
    place = ("--storage", tmp_path / "remote", "--tracking-uri", server.uri)
    drive_sweep("run", file, *place, *setting, environment=server.login)
    drive_sweep("run", file, "--storage", local, *setting)
    for name, value in server.login.items():
        monkeypatch.setenv(name, value)
    shown = Content(TrackingTarget(uri=server.uri, experiment="compared", artifact_root=None)).plain(ids=False)
    here = TrackingTarget(uri=f"sqlite:///{local}/mlflow.db", experiment="compared", artifact_root=None)
    identities = {run["tags"].pop(STORAGE) for run in shown["runs"]}  # which runs in the storage's own database need not have
    assert len(identities) == 1
    compare(timeless(Content(here).plain(ids=False)), timeless(shown))


def readable_secrets(driver: int) -> list[str]:
    """Processes of the driver's Ray in whose environment or command line a secret stands; the tracker needs the login."""
    leaks = []
    for pid in descendants(driver):
        command = command_line(pid)
        if "orchestrator.tracking.process" in command:
            continue
        try:
            seen = Path(f"/proc/{pid}/environ").read_bytes() + command.encode()
        except OSError:
            continue
        leaks += [f"{pid} {command[:80]}" for secret in SECRETS if secret in seen]
    return leaks


def secrets_in(folders: list[Path]) -> list[Path]:
    """Files in which a secret stands."""
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    return [file for file in files if any(secret in file.read_bytes() for secret in SECRETS)]


def session_folders(driver: int) -> list[Path]:
    """Where the driver's Ray keeps its logs."""
    lines = [command_line(pid) for pid in descendants(driver)]
    names = {match.group(0) for line in lines for match in re.finditer(r"/\S*?/session_[0-9_-]+", line)}
    return [Path(os.path.realpath(name)) / "logs" for name in names]
