"""A process that hangs is ended, whatever it does, and its stacks say where it was; no other process is touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.process.hung_process import end_hung_process, end_hung_processes
from tests import ROOT
from tests.support.cli import wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and memfd")
HANG = """
import ctypes, multiprocessing, sys, threading, time
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
    "C code that lets no other thread run": (
        "\n    mutex = ctypes.create_string_buffer(64)\n    for _ in range(2): ctypes.PyDLL(None).pthread_mutex_lock(mutex)",
        "it was waiting",
    ),
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
        answer = end_hung_process(process.pid, descriptor)
        assert process.wait(timeout=5) == -signal.SIGKILL
    assert answer["state"].startswith(state)
    assert answer["ended"]
    assert "in endless" in answer["stacks"]


def test_stopped_process_is_ended_too() -> None:
    with hanging("time.sleep(600)") as (process, descriptor):
        time.sleep(0.3)
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(0.2)
        answer = end_hung_process(process.pid, descriptor)
        assert process.wait(timeout=5) == -signal.SIGKILL
    assert answer["state"] == "it was stopped by a signal (SIGSTOP)"
    assert answer["stacks"] == "a stopped process cannot write its stacks"


def test_workers_that_wait_for_each_other_are_seen_before_one_is_ended() -> None:
    """The second ends with the first, as a worker does whose connection to another one breaks."""
    with hanging("time.sleep(600)") as (first, one), hanging("sys.stdin.read()") as (second, other):
        time.sleep(0.3)
        os.kill(first.pid, signal.SIGSTOP)
        time.sleep(0.2)

        def follow() -> None:
            first.wait()
            second.kill()

        watcher = threading.Thread(target=follow)
        watcher.start()
        answers = end_hung_processes([(first.pid, one), (second.pid, other)])
        watcher.join()
    assert [answer["letter"] for answer in answers] == ["T", "S"]
    assert all(answer["ended"] for answer in answers)
    assert "in endless" in answers[1]["stacks"]


def test_child_at_a_lock_that_was_held_when_it_was_forked_is_ended_with_its_parent() -> None:
    """As a worker process of a DataLoader."""
    what = """
    lock = threading.Lock()
    def in_child():
        lock.acquire()
    lock.acquire()
    child = multiprocessing.get_context("fork").Process(target=in_child)
    child.start()
    print(child.pid, flush=True)
    child.join()"""
    with hanging(what) as (process, descriptor):
        assert process.stdout
        child = int(process.stdout.readline())
        time.sleep(0.3)
        answer = end_hung_process(process.pid, descriptor)
        assert process.wait(timeout=5) == -signal.SIGKILL
    parent, _, forked = answer["stacks"].partition(f"its child process {child}\n")
    assert "in endless" in parent
    assert "in in_child" in forked
    wait_for(lambda: not Path(f"/proc/{child}/fd/{descriptor}").exists(), timeout_s=5)


def test_other_process_with_the_same_id_is_left_alone() -> None:
    process = subprocess.Popen(["sleep", "60"])
    try:
        gone = {"state": "its process is gone", "letter": "", "place": "", "stacks": "", "ended": True}
        assert end_hung_process(process.pid, 1) == gone
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
