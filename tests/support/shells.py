"""A real interactive shell on a terminal of its own: lines are typed, and what it shows after a key is read."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>()][0-9A-Za-z]?|\x1b\][^\x07]*\x07|[\r\x07]")
READY = "ready>"


class Shell:
    """Its output is text without control sequences."""

    def __init__(self, terminal: int) -> None:
        self.terminal = terminal

    def type(self, keys: str) -> None:
        os.write(self.terminal, keys.encode())

    def read(self, until: str, timeout_s: float = 10) -> str:
        """What is shown until a pattern appears. Raises AssertionError if it does not."""
        shown, deadline = "", time.monotonic() + timeout_s
        while not re.search(until, shown):
            ready, _, _ = select.select([self.terminal], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{until!r} is not in {shown!r}"
            shown += ESCAPES.sub("", os.read(self.terminal, 65536).decode(errors="replace"))
        return shown


@contextmanager
def interactive_shell(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Iterator[Shell]:
    """The shell during the block, on a terminal of 200 columns."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execvpe(command[0], list(command), {**environment, "TERM": "xterm", "COLUMNS": "200", "LINES": "50"})
    try:
        yield Shell(terminal)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)
