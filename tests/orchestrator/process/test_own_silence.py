"""A command that runs users' code in its own process is ended when that hangs, whatever it does, and says where."""

from __future__ import annotations

import subprocess
import sys

from orchestrator.errors import EXIT_TRIALS_FAILED
from tests import ROOT

COMMAND = """
import ctypes, sys, time
sys.path.insert(0, {root!r})
from orchestrator.process.own_silence import ended_if_silent
from trainables.runtime.heartbeat import beat

def endless(): {what}

with ended_if_silent(1.0, lambda message, stacks: print("record:", message, flush=True)):
    for _ in range(3):
        time.sleep(0.5)
        beat()
    endless()
print("over")
"""


def run(what: str) -> subprocess.CompletedProcess[str]:
    code = COMMAND.format(root=str(ROOT), what=what)
    return subprocess.run(
        [sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False
    )


def test_hang_is_ended_with_a_record() -> None:
    done = run("\n    while True: pass")
    assert done.returncode == EXIT_TRIALS_FAILED
    assert done.stdout.startswith("record: a hang: nothing happened for ")
    assert "in endless" in done.stderr
    assert "stage_timeout" in done.stderr


def test_hang_that_lets_no_other_thread_run_is_ended_too() -> None:
    done = run("ctypes.PyDLL(None).pause()")
    assert done.returncode == EXIT_TRIALS_FAILED
    assert "in endless" in done.stderr


def test_block_with_signs_of_life_goes_on() -> None:
    assert run("pass").stdout == "over\n"
