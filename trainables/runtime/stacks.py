"""The Python stacks of all threads of a process, written at a signal even while it hangs, and read from outside.

They are in memory under a name of their own, so nothing is left behind, and a process that has taken over an id is recognised.
Linux only.
"""

from __future__ import annotations

import faulthandler
import os
import re
import signal
from functools import cache
from pathlib import Path

SIGNAL = signal.SIGUSR2
NAME = "drive-sweep-stacks"
UNKNOWN = -1
CALL = re.compile(r'^  File "(.+)", line (\d+) in (.+)$', re.MULTILINE)  # as faulthandler writes it
LIBRARY = re.compile(r"/lib/python|/site-packages/|^<")
ROOT = Path(__file__).parents[2]
PROJECT = (f"{ROOT}/trainables/", f"{ROOT}/orchestrator/")


@cache
def stacks_on_signal() -> int:
    """Has this process write its stacks at SIGNAL; returns the descriptor of their file, UNKNOWN on other systems."""
    if not hasattr(os, "memfd_create"):
        return UNKNOWN
    descriptor = os.memfd_create(NAME)
    faulthandler.register(SIGNAL, file=descriptor, all_threads=True, chain=False)
    return descriptor


def has_stacks(pid: int, descriptor: int) -> bool:
    """Whether a process of this machine is the one whose `stacks_on_signal` has returned that."""
    try:
        return os.readlink(f"/proc/{pid}/fd/{descriptor}").startswith(f"/memfd:{NAME}")
    except OSError:
        return False


def read_stacks(pid: int, descriptor: int) -> bytes:
    """What the process has written so far, and what the processes have that it forked; empty if nothing can be read."""
    try:
        return Path(f"/proc/{pid}/fd/{descriptor}").read_bytes()
    except OSError:
        return b""


def place_in(stacks: str) -> str:
    """Where a process works, such as "net.py line 7 (forward)": its innermost call outside of libraries; else empty.

    Args:
        stacks: of its threads; the one that works is the one that is deepest in this project.
    """
    threads = [CALL.findall(thread) for thread in reversed(stacks.split("\n\n"))]  # the main thread is written last
    working = max(threads, key=lambda calls: sum(file.startswith(PROJECT) for file, _, _ in calls))
    for file, line, function in working:
        if file.startswith(PROJECT) or not LIBRARY.search(file):
            return f"{Path(file).name} line {line} ({function})"
    return ""
