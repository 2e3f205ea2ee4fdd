"""How long to wait for something that may be slow or may never come: as long as it gets on."""

from __future__ import annotations

import time


class Patience:
    """A wait that is over after a time without progress, and after a longest time in any case."""

    def __init__(self, stalled_s: float, most_s: float) -> None:
        self.stalled_s = stalled_s
        self._last_at = time.monotonic()
        self._end = self._last_at + most_s
        self._progress: int | None = None

    def is_over(self, progress: int) -> bool:
        """Whether to give up; `progress` is any number that changes with each step."""
        now = time.monotonic()
        if progress != self._progress:
            self._progress, self._last_at = progress, now
        return now >= min(self._end, self._last_at + self.stalled_s)
