"""A worker that hangs is ended, whatever it does, and its stacks say where it was; no other process is touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from orchestrator.cluster.hung_worker import end_hung_worker
from tests import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and memfd")
HANG = """
import sys, threading, time
sys.path.insert(0, {root!r})
from trainables.runtime.stacks import stacks_on_signal
def endless(): {what}
print(stacks_on_signal(), flush=True)
endless()
"""
KINDS = {
    "loop": ("\n    while True: pass", "it was computing"),
    "lock": ("\n    lock = threading.Lock(); lock.acquire(); lock.acquire()", "it was waiting"),
    "read": ("sys.stdin.read()", "it was waiting"),
}


@contextmanager
def hanging(what: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that hangs, and the descriptor of its stacks."""
    code = HANG.format(root=str(ROOT), what=what)
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("kind", KINDS)
def test_stacks_are_read_and_the_process_is_killed(kind: str) -> None:
    what, state = KINDS[kind]
    with hanging(what) as (process, descriptor):
        time.sleep(0.3)  # until it hangs
        answer = end_hung_worker(process.pid, descriptor)
        assert process.wait(timeout=5) == -signal.SIGKILL
    assert (answer["state"], answer["ended"]) == (state, True)
    assert "in endless" in answer["stacks"]


def test_stopped_process_is_ended_too() -> None:
    with hanging("time.sleep(600)") as (process, descriptor):
        time.sleep(0.3)
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(0.2)
        answer = end_hung_worker(process.pid, descriptor)
        assert process.wait(timeout=5) == -signal.SIGKILL
    assert answer["state"] == "it was stopped by a signal (SIGSTOP)"
    assert answer["stacks"] == "a stopped process cannot write its stacks"


def test_other_process_with_the_same_id_is_left_alone() -> None:
    process = subprocess.Popen(["sleep", "60"])
    try:
        assert end_hung_worker(process.pid, 1) == {"state": "its process is gone", "stacks": "", "ended": True}
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
