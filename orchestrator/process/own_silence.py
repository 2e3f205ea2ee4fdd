"""Ends a command that runs users' code in its own process if that code hangs, and says where."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

from orchestrator.errors import EXIT_TRIALS_FAILED
from orchestrator.process.hung_process import descendants
from orchestrator.process.patience import HINT, SIGNS_OF_LIFE, AttentiveClock, hang
from trainables.runtime.heartbeat import INTERVAL_S, heard_by
from trainables.runtime.stacks import place_in

POLL_S = 1.0

OnHang = Callable[[str, str], None]


@contextmanager
def ended_if_silent(limit_s: float, on_hang: OnHang) -> Iterator[None]:
    """Ends this process with EXIT_TRIALS_FAILED if the block gives no sign of life for so long; prints the stacks.

    At a terminal nothing is ended, since somebody may be in a debugger: the stacks are printed once. Code that lets no other
    Python code run is ended too, but `on_hang` is not called then.

    Args:
        on_hang: takes what happened, in one line, and the stacks.
    """
    watch = _Watch(limit_s, on_hang, ends=not (sys.stdin and sys.stdin.isatty()))
    thread = Thread(target=watch.run, name="watch", daemon=True)
    thread.start()
    try:
        with heard_by(watch.hear, min(INTERVAL_S, limit_s / SIGNS_OF_LIFE)):
            yield
    finally:
        watch.over.set()
        thread.join()
        faulthandler.cancel_dump_traceback_later()


class _Watch:
    def __init__(self, limit_s: float, on_hang: OnHang, ends: bool) -> None:
        self.limit_s, self.on_hang, self.ends = limit_s, on_hang, ends
        self.over = Event()
        self.was_heard = True

    def hear(self) -> None:
        self.was_heard = True

    def run(self) -> None:
        clock = AttentiveClock()
        heard, is_said = clock(), False
        while not self.over.wait(POLL_S):
            faulthandler.dump_traceback_later(self.limit_s + POLL_S, exit=self.ends)
            now = clock()
            if self.was_heard:
                heard, is_said, self.was_heard = now, False, False
            elif now - heard > self.limit_s and not is_said:
                is_said = True
                self._hang(now - heard)

    def _hang(self, silent_s: float) -> None:
        stacks = _own_stacks()
        place = place_in(stacks)
        message = hang(silent_s, f"it is in {place}" if place else "where is not known")
        hint = HINT if self.ends else "Ctrl-C ends it"
        print(f"{stacks}\n\n{message}; {hint}", file=sys.stderr, flush=True)
        if not self.ends:
            return
        with suppress(Exception):  # the end must not depend on a storage
            self.on_hang(message, stacks)
        for pid in descendants(os.getpid()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        os._exit(EXIT_TRIALS_FAILED)


def _own_stacks() -> str:
    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        threads = file.read().decode(errors="replace").strip().split("\n\n")
    return "\n\n".join(thread for thread in threads if not thread.startswith("Current thread"))  # which is this one
