"""What a command sets up in its process before it starts; child processes inherit it."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from orchestrator.errors import SetupError
from orchestrator.process.output import prepare_streams
from orchestrator.process.proxies import bypass_proxies_for_loopback

OBJECTS_BETWEEN_COLLECTIONS = 500_000  # of garbage: a start makes nearly as many objects, and hardly any garbage
END_SIGNALS = (signal.SIGTERM, signal.SIGHUP)  # of `kill` and of a closed terminal


def prepare_process() -> None:
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
    prepare_streams()
    bypass_proxies_for_loopback()
    for number in END_SIGNALS:
        if not is_ignored(number):
            signal.signal(number, _exit_on_signal)  # with the clean-up of temporary files and jobs


def require_current_folder() -> None:
    """Raises SetupError if the current folder is gone, since relative paths would mean nothing."""
    try:
        os.getcwd()
    except OSError:
        raise SetupError(
            "the current folder must exist, got one that was deleted", "cd to another", code="folder-not-found"
        ) from None


def is_ignored(number: int) -> bool:
    """Whether the process was started with a signal ignored, as `nohup` does with SIGHUP."""
    return signal.getsignal(number) is signal.SIG_IGN


def stop_signals() -> list[int]:
    """The signals that request a clean stop of a sweep or a trial."""
    return [signal.SIGINT, signal.SIGTERM, *([] if is_ignored(signal.SIGHUP) else [signal.SIGHUP])]


@contextmanager
def shield_children_from_hangup() -> Iterator[None]:
    """Child processes that start in the block ignore the SIGHUP of a closed terminal, which only the driver handles.

    They inherit the signal mask, as Ray does for Ctrl-C; a signal that arrives is handled by another thread or after the block.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _exit_on_signal(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
