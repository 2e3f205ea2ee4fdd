"""`orchestrator.run`: what ends the command with a message raises it here; tests/integration/test_sweep.py runs sweeps."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import orchestrator
from orchestrator import SweepError
from orchestrator.api import running
from orchestrator.errors import DriverBugError, SetupError, UserError
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.factory import open_storage
from tests import ROOT
from tests.support.cli import wait_for

SPEC: dict[str, Any] = {
    "name": "tiny",
    "dataset": {"name": "digits", "limit": 50},
    "model": "convnet",
    "sparsity": 0.9,
    "training": {"epochs": 1, "batch_size": 20},
}


@pytest.mark.parametrize("spec", [SPEC | {"model": "resnet21"}, "name: x\nmodel: resnet21\n", "no-such-file.yaml"])
def test_a_wrong_specification_raises_the_message_of_the_command(spec: Any) -> None:
    with pytest.raises(UserError, match=r"resnet20|no-such-file\.yaml: must be a file or one of the presets") as raised:
        running.run(spec)
    assert raised.value.code in ("sweep-file-invalid", "sweep-file-not-found")


@pytest.mark.process
def test_an_error_of_the_command_is_raised_with_its_message_and_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = open_storage(str(tmp_path / "runs"), create=True)
    with SweepFolder(storage, "tiny").driver_lease(), pytest.raises(SetupError) as raised:
        running.run(SPEC, storage=storage.root)
    assert raised.value.message.startswith("sweep 'tiny' is being run by another process; `drive-sweep stop tiny")
    assert raised.value.code == "sweep-running"
    assert "being run" not in capsys.readouterr().err, "it is said once"


@pytest.mark.parametrize(
    ("code", "last", "expected", "text"),
    [
        (2, "drive-sweep: x must be y; do z [option-invalid]", UserError, "x must be y; do z"),
        (3, "drive-sweep: no room; make some [storage-unavailable]", SetupError, "no room; make some"),
        (70, "drive-sweep: this is a bug [driver-bug]", DriverBugError, "this is a bug"),
        (143, "", SweepError, "sweep 's' was interrupted (exit code 143); run it again to continue"),
    ],
)
def test_exit_codes_are_errors(code: int, last: str, expected: type[SweepError], text: str) -> None:
    with pytest.raises(expected) as raised:
        running._fail(code, last, "s")
    assert type(raised.value) is expected
    assert str(raised.value).strip() == text


def test_output_is_shown_as_it_comes_and_a_last_message_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    output = running._Output()
    for line in ("begun\n", "drive-sweep: MLflow is back\n", "half done\n", "drive-sweep: a is wrong\n", "b too [x-y]\n"):
        output.add(line)
    assert capsys.readouterr().err == "begun\ndrive-sweep: MLflow is back\nhalf done\ndrive-sweep: a is wrong\nb too [x-y]\n"
    with pytest.raises(UserError, match=r"^a is wrong\nb too$"):
        running._fail(2, output.message, "s")
    output.add("drive-sweep: last [x]\n")
    assert capsys.readouterr().err == ""
    output.show_held()
    assert capsys.readouterr().err == "drive-sweep: last [x]\n"


def child(code: str, folder: Path) -> list[str]:
    """What takes the place of the command: it handles SIGINT as that does."""
    handler = f"import os, signal, sys, time; signal.signal(signal.SIGINT, lambda *_: sys.exit(130)); {code}"
    return [sys.executable, "-c", f"{handler}; open({str(folder / 'begun')!r}, 'w').write(str(os.getpid())); time.sleep(60)"]


@pytest.mark.process
def test_an_interruption_here_stops_the_sweep_and_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = subprocess.Popen

    def started(words: list[str], **options: Any) -> Any:
        return start(child("print('so far', file=sys.stderr, flush=True)", tmp_path), **options)

    def interrupt() -> None:
        wait_for(lambda: (tmp_path / "begun").exists(), 20)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", started)
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        running._run_command(["run"])
    thread.join()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "begun").read_text()), 0)


@pytest.mark.process
def test_the_sweep_stops_when_its_parent_is_gone(tmp_path: Path) -> None:
    code = (
        "import sys; from orchestrator.process.child import stop_with_parent; stop_with_parent(); "
        "print('ready', flush=True); import time; time.sleep(60)"
    )
    parent = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {code!r}]); time.sleep(60)"
    read, write = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=write, cwd=ROOT)
    os.close(write)
    assert os.read(read, 5) == b"ready"
    process.kill()
    process.wait()
    killed = time.monotonic()
    assert os.read(read, 100).strip() == b"", "the pipe closes when the child has ended"
    assert time.monotonic() - killed < 30, "it ended by itself, after a minute"
    os.close(read)


def test_public_names_come_with_the_package() -> None:
    assert orchestrator.run is running.run
    with pytest.raises(AttributeError, match="module 'orchestrator' has no attribute 'resume'"):
        getattr(orchestrator, "resume")  # noqa: B009 - mypy knows no attribute
