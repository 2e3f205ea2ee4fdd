"""The Python stacks of all threads of a process, written at a signal even while it hangs, and read from outside.

They are in memory under a name of their own, so nothing is left behind, and a process that has taken over an id is recognised.
Linux only.
"""

from __future__ import annotations

import faulthandler
import os
import signal
from functools import cache
from pathlib import Path

SIGNAL = signal.SIGUSR2
NAME = "drive-sweep-stacks"
LONGEST = 20_000  # bytes that are read
UNKNOWN = -1


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


def read_stacks(pid: int, descriptor: int) -> str:
    """What the process has written so far, the end of it; empty if nothing can be read."""
    try:
        content = Path(f"/proc/{pid}/fd/{descriptor}").read_bytes()
    except OSError:
        return ""
    return content[-LONGEST:].decode(errors="replace")
