"""A sign of life from long work: loops over batches and files call `beat`, and whoever watches the work listens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

INTERVAL_S = 20.0  # between two signs of life; far below the shortest time after which work counts as hung


class _Heart:
    """The listener of this process, which does one stage at a time."""

    def __init__(self) -> None:
        self.listener: Callable[[], None] | None = None
        self.interval_s = INTERVAL_S
        self.last = float("-inf")


_heart = _Heart()


def beat() -> None:
    """Tells the listener that work goes on, at most once per interval; cheap enough for every batch."""
    if _heart.listener is None:
        return
    now = time.monotonic()
    if now - _heart.last >= _heart.interval_s:
        _heart.last = now
        _heart.listener()


@contextmanager
def heard_by(listener: Callable[[], None], interval_s: float = INTERVAL_S) -> Iterator[None]:
    """Has the listener called while the block runs, first at the first beat: then what comes before the work is done."""
    before = _heart.listener, _heart.interval_s
    _heart.listener, _heart.interval_s, _heart.last = listener, interval_s, float("-inf")
    try:
        yield
    finally:
        _heart.listener, _heart.interval_s = before
