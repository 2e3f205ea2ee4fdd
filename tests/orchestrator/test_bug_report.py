"""What a user reads when drive-sweep itself fails, and that other ends of a command keep their exit codes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator import cli
from orchestrator.bug_report import driver_bug
from orchestrator.commands import sweep_file
from orchestrator.errors import EXIT_BUG, DriverBugError, SetupError, UserError
from orchestrator.execution import sweep
from orchestrator.execution.sweep import RunOptions, run_sweep
from orchestrator.planning.plan import make_plan
from orchestrator.spec.loader import load_spec
from orchestrator.storage.factory import open_storage
from orchestrator.version import source_revision
from tests.support.cli import tiny_sweep
from trainables.errors import StorageError


def raising(error: BaseException) -> Callable[..., int]:
    def raise_it(*_: object) -> int:
        raise error

    return raise_it


def test_uncaught_exception_exits_with_traceback_and_bug_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sweep_file, "schema", raising(KeyError("planted")))
    assert cli.main(["schema"]) == EXIT_BUG
    text = capsys.readouterr().err
    assert "a bug of drive-sweep ended this command: KeyError: 'planted'" in text
    assert "Traceback (most recent call last)" in text
    assert "in raise_it" in text
    assert "finished trials are kept, and `drive-sweep resume NAME` continues the sweep" in text
    assert f"the version (drive-sweep {source_revision()}), the sweep file, and the last lines of" in text


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("no"), 2),
        (SetupError("no"), 3),
        (StorageError("no"), 3),
        (PermissionError(13, "Permission denied", "file"), 3),
        (KeyboardInterrupt(), 130),
        (OSError(5, "Input/output error"), EXIT_BUG),
    ],
)
def test_other_errors_keep_their_exit_codes(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sweep_file, "schema", raising(error))
    assert cli.main(["schema"]) == code
    assert ("Traceback" in capsys.readouterr().err) == (code == EXIT_BUG)


def test_bug_within_a_sweep_is_kept_in_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(str(tmp_path / "runs"), create=True)
    plan = make_plan(load_spec(str(tiny_sweep(tmp_path))), storage)
    monkeypatch.setattr(sweep, "_run_with_lease", raising(RuntimeError("planted")))
    with pytest.raises(DriverBugError, match="RuntimeError: planted") as caught:
        run_sweep(plan, "", storage, RunOptions(quiet=True))
    log = tmp_path / "runs/sweeps/tiny/sweep.log"
    assert f"also in {log}" in caught.value.hint
    storage.flush()
    assert "RuntimeError: planted" in log.read_text()
    assert (caught.value.exit_code, caught.value.code) == (EXIT_BUG, "driver-bug")


def test_text_of_a_bug_is_message_then_traceback_then_hint() -> None:
    error = driver_bug("Traceback (most recent call last):\n  somewhere\nValueError: x; y\n")
    assert str(error).splitlines() == [
        "a bug of drive-sweep ended this command: ValueError: x; y",
        "Traceback (most recent call last):",
        "  somewhere",
        "ValueError: x; y",
        error.hint,
    ]
