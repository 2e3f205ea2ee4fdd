"""Which running stages have reported nothing for too long. Knows no Ray.

A stage reports its start, its progress, and between these that it works: at every batch and every file, if nothing was said
for some time (trainables/runtime/heartbeat.py). So silence means that one batch or one file takes too long.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

SHORTEST_S = 600.0
START_S = 120.0  # at least, for the first report: a new process imports, and reads its data
FACTOR = 5.0  # times the median duration of the finished stages of the same kind


@dataclass(kw_only=True)
class Silence:
    """A stage that has reported nothing for longer than it may."""

    run: str
    seconds: float
    limit_s: float

    def __str__(self) -> str:
        return f"it reported nothing for {self.seconds:.0f} s (limit {self.limit_s:.0f} s)"


@dataclass(kw_only=True)
class _Watched:
    kind: str
    began: float
    heard: float
    has_spoken: bool = False


@dataclass(kw_only=True)
class Watchdog:
    """Watches the stages that workers have taken up; each is known by the id of its run.

    Attributes:
        timeout_s: of all stages; None for FACTOR times the median of their kind, at least SHORTEST_S.
        clock: seconds that only grow.
    """

    timeout_s: float | None = None
    clock: Callable[[], float] = time.monotonic
    _watched: dict[str, _Watched] = field(default_factory=dict)
    _durations: dict[str, list[float]] = field(default_factory=dict)

    def begin(self, run: str, kind: str) -> None:
        now = self.clock()
        self._watched[run] = _Watched(kind=kind, began=now, heard=now)

    def hear(self, run: str) -> None:
        """The run has reported something, which is not its beginning."""
        if run in self._watched:
            self._watched[run].heard, self._watched[run].has_spoken = self.clock(), True

    def end(self, run: str, *, finished: bool = False) -> None:
        """Watches the run no longer; the duration of a finished one counts for others of its kind."""
        watched = self._watched.pop(run, None)
        if watched is not None and finished:
            self._durations.setdefault(watched.kind, []).append(self.clock() - watched.began)

    def limit_s(self, kind: str) -> float:
        """How long a stage of this kind may say nothing."""
        if self.timeout_s is not None:
            return self.timeout_s
        known = self._durations.get(kind)
        return max(SHORTEST_S, FACTOR * statistics.median(known)) if known else SHORTEST_S

    def silent(self) -> list[Silence]:
        """The runs that have said nothing for longer than they may."""
        now = self.clock()
        usual = {kind: self.limit_s(kind) for kind in {one.kind for one in self._watched.values()}}
        silent = []
        for run, one in self._watched.items():
            limit_s = usual[one.kind] if one.has_spoken else max(START_S, usual[one.kind])
            if now - one.heard > limit_s:
                silent.append(Silence(run=run, seconds=now - one.heard, limit_s=limit_s))
        return silent
