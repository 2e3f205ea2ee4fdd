"""Which running stages have reported nothing for too long. Knows no Ray.

A stage reports its start, its progress, and between these that it works: at every batch and every file, if nothing was said
for some time (trainables/runtime/heartbeat.py). So silence means that one batch or one file takes too long.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

from orchestrator.process.patience import SHORTEST_S, START_S, AttentiveClock

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
    predicted_s: float | None
    began: float
    heard: float
    has_spoken: bool = False


@dataclass(kw_only=True)
class Watchdog:
    """Watches the stages that workers have taken up; each is known by the id of its run.

    Attributes:
        timeout_s: of all stages; None for FACTOR times the median of their kind, at least SHORTEST_S. The first stages of a
            kind have FACTOR times what was predicted of them.
        clock: seconds that only grow.
    """

    timeout_s: float | None = None
    clock: Callable[[], float] = field(default_factory=AttentiveClock)
    _watched: dict[str, _Watched] = field(default_factory=dict)
    _durations: dict[str, list[float]] = field(default_factory=dict)

    def begin(self, run: str, kind: str, predicted_s: float | None = None) -> None:
        """Watches a run.

        Args:
            predicted_s: its duration, where something is known of it.
        """
        now = self.clock()
        self._watched[run] = _Watched(kind=kind, predicted_s=predicted_s, began=now, heard=now)

    def hear(self, run: str) -> None:
        """The run has reported something, which is not its beginning."""
        if run in self._watched:
            self._watched[run].heard, self._watched[run].has_spoken = self.clock(), True

    def end(self, run: str, *, finished: bool = False) -> None:
        """Watches the run no longer; the duration of a finished one counts for others of its kind."""
        watched = self._watched.pop(run, None)
        if watched is not None and finished:
            self._durations.setdefault(watched.kind, []).append(self.clock() - watched.began)

    def limit_s(self, kind: str, predicted_s: float | None = None) -> float:
        """How long a stage of this kind may say nothing."""
        if self.timeout_s is not None:
            return self.timeout_s
        known = self._durations.get(kind)
        usual_s = statistics.median(known) if known else predicted_s
        return max(SHORTEST_S, FACTOR * (usual_s or 0.0))

    def silent(self) -> list[Silence]:
        """The runs that have said nothing for longer than they may."""
        now = self.clock()
        silent = []
        for run, one in self._watched.items():
            if now - one.heard <= (self.timeout_s or SHORTEST_S):  # no limit is shorter
                continue
            usual_s = self.limit_s(one.kind, one.predicted_s)
            limit_s = usual_s if one.has_spoken else max(START_S, usual_s)
            if now - one.heard > limit_s:
                silent.append(Silence(run=run, seconds=now - one.heard, limit_s=limit_s))
        return silent
