"""Ends a worker that hangs, on its node, after its stacks were read."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainables.runtime.stacks import SIGNAL, has_stacks, read_stacks

STACKS_TIMEOUT_S = 3.0
END_TIMEOUT_S = 10.0
POLL_S = 0.1
STOPPED = "a stopped process cannot write its stacks"  # and must not go on, lest it finishes while it is killed
SAMPLES, SAMPLE_S = 5, 0.04
STATES = {  # of a process, as Linux names them
    "R": "it was computing",
    "S": "it was waiting",
    "D": "it was waiting for a device or a disk",
    "T": "it was stopped by a signal (SIGSTOP)",
    "t": "it was stopped by a debugger",
}


def end_hung_worker(pid: int, descriptor: int) -> dict[str, Any]:
    """Reads the stacks of a worker of this machine and kills it.

    Args:
        descriptor: what its `stacks_on_signal` has returned.

    Returns:
        "state": what the process did, in words; "stacks": of all its threads, or why there are none; "ended": whether it is
        gone.
    """
    if not has_stacks(pid, descriptor):
        return {"state": "its process is gone", "stacks": "", "ended": True}
    letter = _state(pid)
    stacks = STOPPED if letter in "Tt" else _stacks(pid, descriptor)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return {"state": STATES.get(letter, ""), "stacks": stacks, "ended": _wait_for_end(pid, descriptor)}


def _stacks(pid: int, descriptor: int) -> str:
    """The stacks that the process writes now."""
    before = read_stacks(pid, descriptor)
    with suppress(ProcessLookupError):
        os.kill(pid, SIGNAL)
    deadline = time.monotonic() + STACKS_TIMEOUT_S
    size = -1
    while time.monotonic() < deadline:
        time.sleep(POLL_S)
        now = read_stacks(pid, descriptor)
        if now != before and len(now) == size:  # written to its end
            return now.removeprefix(before).strip()
        size = len(now)
    return read_stacks(pid, descriptor).removeprefix(before).strip() or "it did not answer the signal that asks for its stacks"


def _wait_for_end(pid: int, descriptor: int) -> bool:
    """Whether it is gone; one that waits for a device may stay."""
    deadline = time.monotonic() + END_TIMEOUT_S
    while time.monotonic() < deadline:
        if not has_stacks(pid, descriptor):
            return True
        time.sleep(POLL_S)
    return False


def _state(pid: int) -> str:
    """What the process does, by the letter of Linux; it is computing if one of its threads is most of the time."""
    seen = [_threads(pid) for _ in range(SAMPLES)]
    for letter in "TtDR":
        if sum(letter in states for states in seen) > SAMPLES / 2:
            return letter
    return "S"


def _threads(pid: int) -> set[str]:
    """The states of its threads now."""
    time.sleep(SAMPLE_S)
    states = set()
    for file in Path(f"/proc/{pid}/task").glob("*/stat"):
        with suppress(OSError):
            states.add(file.read_text().rpartition(")")[2].split()[0])
    return states
