"""Ends a process of this machine that hangs, with its children, after their stacks were read."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainables.runtime.stacks import SIGNAL, has_stacks, place_in, read_stacks

STACKS_TIMEOUT_S = 3.0
END_TIMEOUT_S = 10.0
POLL_S = 0.1
STOPPED = "a stopped process cannot write its stacks"  # and must not go on, lest it finishes while it is killed
SAMPLES, SAMPLE_S = 5, 0.04
LONGEST = 20_000  # bytes of stacks that are kept of a process
STATES = {  # of a process, as Linux names them
    "R": "it was computing",
    "S": "it was waiting",
    "D": "it was waiting for a device or a disk",
    "T": "it was stopped by a signal (SIGSTOP)",
    "t": "it was stopped by a debugger",
}


def end_hung_process(pid: int, descriptor: int) -> dict[str, Any]:
    """Reads the stacks of a process of this machine and kills it, and whatever it has started, such as workers of a DataLoader.

    Args:
        descriptor: what its `stacks_on_signal` has returned.

    Returns:
        "state": what the process did and where, in words; "letter": its state as Linux names it, empty if it was gone;
        "place": its innermost call outside of libraries, empty if unknown; "stacks": of all threads, its children's too, or why
        there are none; "ended": whether it is gone.
    """
    return end_hung_processes([(pid, descriptor)])[0]


def end_hung_processes(processes: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """The same for several that work together; all stacks are read before the first is killed, since the others see its end."""
    seen = [_seen(pid, descriptor) for pid, descriptor in processes]
    for (pid, _), one in zip(processes, seen, strict=True):
        for victim in (pid, *one.pop("children")):
            if one["letter"]:
                with suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
    return [one | {"ended": _wait_for_end(*process)} for process, one in zip(processes, seen, strict=True)]


def _seen(pid: int, descriptor: int) -> dict[str, Any]:
    """What a process does now, its stacks, and its children."""
    if not has_stacks(pid, descriptor):
        return {"state": "its process is gone", "letter": "", "place": "", "stacks": "", "children": []}
    letter = _state(pid)
    children = descendants(pid)
    own = STOPPED if letter in "Tt" else _stacks(pid, descriptor)
    forked = {child: _stacks(child, descriptor) for child in children if has_stacks(child, descriptor)}
    place = place_in(own)
    return {
        "state": STATES.get(letter, "it hung") + (f" in {place}" if place else ""),
        "letter": letter,
        "place": place,
        "stacks": "\n\n".join([own, *(f"its child process {child}\n{stacks}" for child, stacks in forked.items())]),
        "children": children,
    }


def _stacks(pid: int, descriptor: int) -> str:
    """The stacks that the process writes now."""
    before = size = len(read_stacks(pid, descriptor))
    with suppress(ProcessLookupError):
        os.kill(pid, SIGNAL)
    deadline = time.monotonic() + STACKS_TIMEOUT_S
    while time.monotonic() < deadline:
        time.sleep(POLL_S)
        now = len(read_stacks(pid, descriptor))
        if before < now == size:  # written to its end
            break
        size = now
    written = read_stacks(pid, descriptor)[before:][-LONGEST:].decode(errors="replace").strip()
    return written or "it did not answer the signal that asks for its stacks"


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


def descendants(pid: int) -> list[int]:
    """The processes that it has started, and those that these have."""
    children: dict[int, list[int]] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(file.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(file.parent.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found[1:]
