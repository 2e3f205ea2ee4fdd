"""What is decided on the machine that submits: what a job brings along, which address and token count, what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from orchestrator.errors import UserError
from orchestrator.jobs.client import api_address
from orchestrator.jobs.job import without_ray_lines
from orchestrator.jobs.package import CODE, collect_custom_files, package, shipped_settings
from orchestrator.spec.grid import expand
from orchestrator.spec.loader import load_spec
from orchestrator.version import source_revision
from tests.support.cli import drive_sweep, tiny_sweep
from trainables.errors import ConfigError

SHARED = ("--storage", "/shared/sweeps", "--tracking-uri", "http://mlflow:5000")


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """Files of a user: two modules that a sweep names, what they import in several ways, and what is not theirs."""
    for name, text in {
        "nets/wide.py": "import helper\nfrom .parts import block\nfrom nets.deep import norms\nimport torch, json\n",
        "nets/parts.py": "def block(): ...",
        "nets/deep/__init__.py": "from . import norms\n",
        "nets/deep/norms.py": "def f():\n    import lazy\n",
        "helper.py": "from nets import wide",
        "lazy.py": "import trainables.config.keys",
        "losses.py": "import numpy",
        "unused.py": "",
        "trainables/config/keys.py": "",
        "weights/dense.pt": "w",
        "data/images.npy": "x",
        ".git/config": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def custom_sweep(folder: Path) -> list[str]:
    return [
        "model={module: nets.wide.net}",
        "training.loss={module: losses.focal}",
        f"modules_path={folder}",
        f"initial_weights={folder}/weights/dense.pt",
    ]


def test_a_package_holds_the_code_and_what_the_sweep_names(modules: Path) -> None:
    custom = collect_custom_files(load_spec("digits", custom_sweep(modules)))
    files = ("nets/wide", "nets/parts", "nets/deep/__init__", "nets/deep/norms", "helper", "lazy", "losses")
    wanted = {f"own/{name}.py": str(modules / f"{name}.py") for name in files}
    assert custom == wanted | {"weights/dense.pt": str(modules / "weights/dense.pt")}
    with package({"sweep.yaml": "name: x"}, custom) as folder:
        sent = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        assert {*custom, "sweep.yaml", "REVISION", "trainables/worker/trainable.py", "orchestrator/sweeps/digits.yaml"} <= sent
        assert {path.name for path in folder.iterdir()} == {*CODE, "own", "weights", "sweep.yaml", "REVISION"}
        assert not [name for name in sent if "__pycache__" in name]
        assert (folder / "REVISION").read_text() == source_revision()
        assert (folder / "own/nets/parts.py").read_text() == "def block(): ..."
    assert not folder.exists()


def test_shipped_files_are_beside_the_code_of_every_node(modules: Path) -> None:
    """The package is unpacked anywhere; the settings that go along name no folder of the machine that sent it."""
    custom = collect_custom_files(load_spec("digits", custom_sweep(modules)))
    settings = [*custom_sweep(modules)[:2], *shipped_settings(custom)]
    assert settings[2:] == ["modules_path=shipped:own", 'initial_weights="shipped:weights/dense.pt"']
    script = f"""
from orchestrator.spec.grid import expand
from orchestrator.spec.loader import load_spec, resolved, spec_from_resolved
spec = load_spec("digits", {settings!r})
spec = spec_from_resolved(resolved(spec))  # as `resume` reads it
custom = spec.custom_files()
print(*sorted(custom.with_digests(expand(spec)).digests), custom.missing(expand(spec)[0]) or "")
"""
    with package({}, custom) as folder:
        for source in modules.iterdir():
            source.rename(source.with_name(f"gone-{source.name}"))
        assert printed_in(folder, script) == "initial_weights module:losses.focal module:nets.wide.net"
        (folder / "weights").rename(folder / "gone")
        assert "initial_weights: weights/dense.pt is a file that the sweep was submitted with" in printed_in(folder, script)
        (folder / "gone").rename(folder / "weights")
        (folder / "own/losses.py").unlink()
        assert "module:losses.focal must be a function of a Python file in shipped:own" in printed_in(folder, script)


def test_weights_may_have_any_name(tmp_path: Path) -> None:
    (tmp_path / "my model #1: ü😀.pt").write_text("w")
    custom = collect_custom_files(load_spec("digits", [f"initial_weights='{tmp_path}/my model #1: ü😀.pt'"]))
    assert load_spec("digits", shipped_settings(custom)).initial_weights == "shipped:weights/my model #1: ü😀.pt"


@pytest.mark.parametrize("setting", ["model={module: nets.net}", "initial_weights=shipped:weights/dense.pt"])
def test_files_that_only_jobs_have_are_reported_with_a_hint(tmp_path: Path, setting: str) -> None:
    spec = load_spec("digits", ["modules_path=shipped:own", setting])
    with pytest.raises(ConfigError, match=r"which only its jobs on the cluster have; resume it there, with --address"):
        spec.custom_files().with_digests(expand(spec))


def printed_in(folder: Path, script: str) -> str:
    """What a process prints that runs the code in this folder."""
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip()


def test_missing_custom_file_cannot_be_sent(tmp_path: Path) -> None:
    gone = {"own/net.py": str(tmp_path / "net.py")}
    with pytest.raises(UserError, match=r"net\.py must be on this machine to be sent along, got no"), package({}, gone):
        pass


def test_weights_that_are_not_here_stay_a_path_of_the_nodes() -> None:
    custom = collect_custom_files(load_spec("digits", ["initial_weights=/shared/dense.pt"]))
    assert (custom, shipped_settings(custom)) == ({}, [])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "storage: must be one that all nodes of the cluster see, got './runs'; give --storage with a URI such as s3://"),
        (("--storage", "/shared"), "tracking.uri: must be a server that the cluster reaches, got none; give --tracking-uri"),
        (("--storage", "/shared", "--tracking-uri", "sqlite:////shared/mlflow.db"), "got sqlite:////shared/mlflow.db; give"),
        ((*SHARED, "--set", "dataset={name: cifar10, root: data}"), "dataset.root: must be an absolute path on the nodes"),
        ((*SHARED, "--set", "sparsity=95"), "--set sparsity: sparsity must be in [0, 1), got 95; a percentage? write 0.95"),
        ((*SHARED, "--set", "model={module: nothing.net}"), "model: module:nothing.net must be a function of a Python file in"),
        (SHARED, "--address: must be the cluster's dashboard, got none; give --address http://HEAD:8265, or set"),
        ((*SHARED, "--address", "head:6379"), "--address: must be the cluster's dashboard, got 'head:6379'; give"),
    ],
)
def test_what_cannot_run_on_a_cluster_is_refused_here(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    answer = drive_sweep("submit", tiny_sweep(tmp_path), *options, expect=2)
    assert message in answer.stderr
    assert answer.stdout == ""


def test_run_says_where_a_dashboard_belongs(tmp_path: Path) -> None:
    file = tiny_sweep(tmp_path)
    answer = drive_sweep("run", file, "--address", "http://head:8265", "--storage", tmp_path / "runs", expect=2)
    assert "`drive-sweep submit" in answer.stderr
    assert not (tmp_path / "runs").exists()


def test_the_address_is_the_options_or_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_ADDRESS", "https://ray.example/")
    assert api_address(None) == "https://ray.example"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://head:8265")
    assert api_address(None) == "http://head:8265"
    assert api_address("http://other:8265/") == "http://other:8265"
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS")
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    with pytest.raises(UserError, match="got none"):
        api_address(None)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RAY_AUTH_MODE": "token"}, "RAY_AUTH_MODE is token, but there is no token; export"),
        ({"RAY_AUTH_TOKEN_PATH": "/nothing"}, "RAY_AUTH_TOKEN_PATH: must be a file that holds the cluster's token, got"),
    ],
)
def test_a_token_that_is_not_there_ends_with_3(
    old_cluster: str, tmp_path: Path, variables: dict[str, str], message: str
) -> None:
    answer = drive_sweep("list", "--address", old_cluster, environment={"HOME": str(tmp_path)} | variables, expect=3)
    assert message in answer.stderr


def test_another_version_of_ray_ends_with_3(old_cluster: str) -> None:
    import ray

    answer = drive_sweep("list", "--address", old_cluster, expect=3)
    assert f"the Ray cluster at {old_cluster} runs Ray 2.9.0, this machine has {ray.__version__}; install the" in answer.stderr
    assert len(answer.stderr.splitlines()) == 1


@pytest.fixture(scope="module")
def old_cluster() -> Iterator[str]:
    """Answers as the dashboard of Ray 2.9 does when it is asked for its version."""

    class Dashboard(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = json.dumps({"version": "4", "ray_version": "2.9.0", "ray_commit": "", "session_name": ""}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Dashboard)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_jobs_output_comes_without_rays_lines() -> None:
    log = (
        "2026-11-25 00:26:47,370\tINFO job_manager.py:581 -- Runtime env is setting up.\n"
        "Running entrypoint for job tiny-1: python -m orchestrator.cli run sweep.yaml\n"
        "starting Ray\n"
        "2026-11-25 00:26:50,001\tINFO worker.py:1942 -- Connecting to existing Ray cluster at address: 127.0.0.2:1...\n"
        "[2026-11-25 00:26:51,002 E 4242 4243] (python) core_worker.cc:1: lost a connection\n"
        "2026-11-25 00:26:52 tiny: a line of ours\n"
    )
    assert without_ray_lines(log) == "starting Ray\n2026-11-25 00:26:52 tiny: a line of ours\n"
    assert without_ray_lines(log.splitlines(keepends=True)[0]) == ""
