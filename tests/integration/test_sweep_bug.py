"""A bug of the driver in the middle of a sweep: exit code 70, the traceback, and a `resume` that finishes the rest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT
from tests.support.cli import drive_sweep, status, tiny_sweep

# As the command line does it, with a hook of the driver that fails at the end of the second trial.
PLANTED = """
import sys
from orchestrator.cli import main
from orchestrator.execution.driver import Driver

on_report, ends = Driver.on_report, []

def planted(driver, stage, report):
    on_report(driver, stage, report)
    if report["event"] == "ended" and not stage.is_warmup:
        ends.append(stage.key)
        if len(ends) == 2:
            raise LookupError("planted in a hook")

Driver.on_report = planted
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.long
def test_bug_in_a_hook_ends_a_sweep_with_70_and_resume_continues(tmp_path: Path) -> None:
    file, storage = tiny_sweep(tmp_path), tmp_path / "runs"
    arguments = ["run", str(file), "--storage", str(storage), "--quiet"]
    done = subprocess.run(
        [sys.executable, "-c", PLANTED, *arguments],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 70, done.stderr
    assert "a bug of drive-sweep ended this command: LookupError: planted in a hook" in done.stderr
    assert "LookupError: planted in a hook" in (storage / "sweeps/tiny/sweep.log").read_text()
    assert f"`drive-sweep resume tiny --storage {storage}` continues the sweep" in done.stderr
    kept = {path: path.read_bytes() for path in storage.glob("trials/*/result.json")}
    assert kept
    drive_sweep("resume", "tiny", "--storage", storage, "--quiet")
    assert status("tiny", storage)["finished"] == 7
    assert {path: path.read_bytes() for path in kept} == kept
