"""What a command sets up in its own process before it begins; the processes that it starts inherit it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from orchestrator.errors import SetupError
from orchestrator.process.output import prepare_streams
from orchestrator.process.proxies import bypass_proxies_for_loopback

END_SIGNALS = (signal.SIGTERM, signal.SIGHUP)  # of `kill`, and of a terminal that is closed


def prepare_process() -> None:
    prepare_streams()
    bypass_proxies_for_loopback()
    for number in END_SIGNALS:
        if not is_ignored(number):
            signal.signal(number, _exit_on_signal)  # temporary files and small jobs are removed on the way


def require_current_folder() -> None:
    """Raises SetupError if the current folder is gone, in which no path means anything."""
    try:
        os.getcwd()
    except OSError:
        raise SetupError(
            "the current folder must exist, got one that was deleted", "cd to another", code="folder-not-found"
        ) from None


def is_ignored(number: int) -> bool:
    """Whether the process was started to ignore a signal; `nohup` does that with SIGHUP."""
    return signal.getsignal(number) is signal.SIG_IGN


def stop_signals() -> list[int]:
    """The signals that ask a sweep or a trial for a clean stop."""
    return [signal.SIGINT, signal.SIGTERM, *([] if is_ignored(signal.SIGHUP) else [signal.SIGHUP])]


@contextmanager
def shield_children_from_hangup() -> Iterator[None]:
    """Processes that are started in the block do not get the SIGHUP of a terminal that is closed: it is for the driver alone.

    They inherit the mask of signals, as Ray does it for Ctrl-C; another thread, or the end of the block, takes what comes.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _exit_on_signal(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
