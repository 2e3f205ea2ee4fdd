"""The world around a command: proxies, homes that cannot be written, long and missing temporary folders, deleted folders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.request import proxy_bypass

import pytest

from orchestrator.cluster.connection import ray_folder
from orchestrator.commands.options import warn_of_unused_environment
from orchestrator.errors import SetupError
from orchestrator.jobs.client import Jobs
from orchestrator.process.proxies import bypass_proxies_for_loopback, proxy_hint, proxy_of
from orchestrator.spec.loader import load_spec
from tests import ROOT
from tests.support.cli import command, free_port
from trainables.errors import StorageError
from trainables.runtime.cache_folder import cache_folder

DEAD = "http://me:secret@127.0.0.1:9"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "grpc_proxy", "no_grpc_proxy")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        for written in (name, name.upper()):
            monkeypatch.setenv(written, "")
            monkeypatch.delenv(written)


@pytest.mark.parametrize("variable", ["http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy", "grpc_proxy"])
@pytest.mark.parametrize("exempt", ["", "no_proxy", "NO_PROXY"])
def test_loopback_never_goes_through_a_proxy(monkeypatch: pytest.MonkeyPatch, variable: str, exempt: str) -> None:
    monkeypatch.setenv(variable, DEAD)
    if exempt:
        monkeypatch.setenv(exempt, "mine.example")
    bypass_proxies_for_loopback()
    for host in ("127.0.0.1", "localhost", "::1"):
        assert proxy_bypass(host)
        assert proxy_of(f"http://{'[::1]' if ':' in host else host}:8265") == ""
    assert bool(proxy_bypass("mine.example")) is bool(exempt)
    assert not proxy_bypass("head.example")
    before = os.environ["no_proxy"]
    bypass_proxies_for_loopback()
    assert os.environ["no_proxy"] == before


def test_without_a_proxy_nothing_is_set() -> None:
    bypass_proxies_for_loopback()
    assert "no_proxy" not in os.environ
    assert "NO_PROXY" not in os.environ


def test_a_dead_proxy_is_named_at_once_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", DEAD)
    assert "http://...@127.0.0.1:9" in proxy_hint("http://head.example:8265")
    with pytest.raises(SetupError, match=r"the proxy http://\.\.\.@127\.0\.0\.1:9 .* NO_PROXY=head\.example") as caught:
        Jobs("http://head.example:8265")
    assert "secret" not in str(caught.value)


def test_a_server_on_loopback_is_reached_beside_a_dead_proxy() -> None:
    """As `ui`, `submit` and tracking do it: by urllib, requests and aiohttp, in a process that a command prepared."""
    code = f"""
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from orchestrator.process.setup import prepare_process
prepare_process()
class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"well")
    def log_message(self, *_): pass
server = HTTPServer(("127.0.0.1", {free_port()}), Answer)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{{server.server_port}}"
import asyncio, urllib.request, aiohttp, requests
async def ask():
    async with aiohttp.ClientSession(trust_env=True) as session, session.get(url) as answer:
        return await answer.read()
print(urllib.request.urlopen(url, timeout=5).read(), requests.get(url, timeout=5).content, asyncio.run(ask()))
"""
    environment = os.environ | dict.fromkeys(("http_proxy", "HTTP_PROXY", "ALL_PROXY"), DEAD)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout == "b'well' b'well' b'well'\n", done.stderr


@pytest.fixture
def no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that nobody can write, root included: it would lie below a file."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path / "file" / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("DRIVE_SWEEP_CACHE", raising=False)
    return tmp_path


@pytest.mark.parametrize("variable", ["HOME", "XDG_CACHE_HOME"])
def test_cache_without_a_home_is_a_temporary_folder(
    no_home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, variable: str
) -> None:
    if variable == "XDG_CACHE_HOME":
        monkeypatch.setenv("HOME", str(no_home))
        monkeypatch.setenv("XDG_CACHE_HOME", str(no_home / "file" / "cache"))
    folders = {cache_folder(), cache_folder()}
    assert folders == {no_home / f"drive-sweep-cache-{os.getuid()}"}
    assert folders.pop().stat().st_mode & 0o777 == 0o700
    (record,) = caplog.records
    assert "cannot be written" in record.getMessage()
    assert "DRIVE_SWEEP_CACHE names another" in record.getMessage()
    assert os.environ["DRIVE_SWEEP_CACHE"] == str(no_home / f"drive-sweep-cache-{os.getuid()}")  # for child processes


def test_unwritable_cache_that_was_asked_for_is_refused(no_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIVE_SWEEP_CACHE", str(no_home / "file" / "cache"))
    with pytest.raises(StorageError, match=r"DRIVE_SWEEP_CACHE must be a folder that can be written, got .*; give another"):
        cache_folder()


def test_the_temporary_cache_of_another_user_is_not_taken(no_home: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can make a folder of another user")
    folder = no_home / "drive-sweep-cache-0"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    with pytest.raises(StorageError, match="it belongs to another user"):
        cache_folder()


def test_a_user_without_name_and_home_gets_a_plan_and_a_cache(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents:
        if parent.stat().st_mode & 0o005 != 0o005:
            pytest.skip("another user cannot enter the folder of temporary files")
    environment = {
        name: value for name, value in os.environ.items() if name not in ("HOME", "DRIVE_SWEEP_CACHE", "XDG_CACHE_HOME")
    }
    code = "import json, sys\nfrom trainables.runtime.cache_folder import cache_folder\nprint(json.dumps(str(cache_folder())))"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment | {"TMPDIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
            user=54321,
            timeout=60,
        )
    except PermissionError:
        pytest.skip("another user cannot run this Python")
    if "Permission denied" in done.stderr and not done.stdout:
        pytest.skip("another user cannot read this checkout or its Python")
    assert json.loads(done.stdout) == str(tmp_path / "drive-sweep-cache-54321")


@pytest.fixture
def longest(monkeypatch: pytest.MonkeyPatch) -> int:
    """Characters that the path of a temporary folder may have."""
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.delenv("TMPDIR", raising=False)
    assert ray_folder() == ("/tmp/ray", "")
    return 107 - len(f"/ray/session_2026-11-28_10-06-13_123456_{os.getpid()}/sockets/plasma_store.1")


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_unusable_temporary_folder_is_replaced_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, longest: int, variable: str
) -> None:
    fits = Path("/tmp", "x" * (longest - len("/tmp/")))
    fits.mkdir(exist_ok=True)
    too_long = fits.with_name(fits.name + "x")
    too_long.mkdir(exist_ok=True)
    try:
        monkeypatch.setenv(variable, str(fits))
        assert ray_folder() == (f"{fits}/ray", "")
        monkeypatch.setenv(variable, str(too_long))
        folder, remark = ray_folder()
        assert folder == "/tmp/ray"
        assert f"{variable} {too_long} has more than the {longest} characters that the paths of sockets allow" in remark
    finally:
        fits.rmdir()
        too_long.rmdir()
    monkeypatch.setenv(variable, str(fits))
    assert f"{variable} {fits} is not a folder that can be written" in ray_folder()[1]


def test_no_folder_for_ray_is_refused_with_the_variable_to_set(monkeypatch: pytest.MonkeyPatch, longest: int) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(SetupError, match=r"RAY_TMPDIR must be a folder that can be written.*/tmp is not a folder.*; set it"):
        ray_folder()


def test_deleted_current_folder_is_an_error(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    line = f"cd {gone} && rmdir {gone} && exec {' '.join(command('status', 'x'))}"
    root = ROOT
    done = subprocess.run(
        ["sh", "-c", line], env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (
        3,
        "drive-sweep: the current folder must exist, got one that was deleted; cd to another [folder-not-found]\n",
    )


@pytest.mark.parametrize(
    ("tracking", "warnings"),
    [
        (
            [],
            [
                "MLFLOW_TRACKING_URI is set to http://...@lab:5000 and has no effect: runs go to the database in the "
                "storage; --tracking-uri names another",
                "MLFLOW_EXPERIMENT_NAME is set to mine and has no effect: runs are in experiment drive-sweep, as "
                "tracking.experiment says",
            ],
        ),
        (["tracking.uri=http://lab:5000", "tracking.experiment=mine"], []),
    ],
)
def test_unused_variables_of_mlflow_are_reported(
    tracking: list[str], warnings: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@lab:5000")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    warn_of_unused_environment(load_spec("digits", tracking))
    assert capsys.readouterr().err.splitlines() == warnings
