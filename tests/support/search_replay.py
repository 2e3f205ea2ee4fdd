"""Runs the real search on a recorded grid, in simulated time: an epoch is the unit."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.search.decisions import DecisionLog, MemoryLog
from orchestrator.search.early_stopping import EarlyStopper
from orchestrator.search.factory import make_search, rungs_of
from orchestrator.search.groups import Group
from orchestrator.search.search import Search, SearchTrial
from orchestrator.search.warmups import WarmupLedger
from orchestrator.spec.schema import SweepSpec
from tests.support.recorded_grid import METRIC, RecordedGrid, point_of
from trainables.config.keys import trial_key, warmup_key
from trainables.config.trial import TrialConfig

NO_DATA = "replay"


@dataclass(frozen=True)
class Moment:
    """The recommended configurations after so many epochs."""

    epochs: int
    recommended: Mapping[str, Mapping[str, Any]]


@dataclass(kw_only=True)
class Replay:
    """One replay.

    Attributes:
        seeds: seed of the search -> seed of the grid, drawn anew for each replay.
        slots: trials that run at once.
        moments: the course; a new one after each result.
    """

    grid: RecordedGrid
    spec: SweepSpec
    seeds: Mapping[int, int]
    log: DecisionLog = field(default_factory=MemoryLog)
    stopper_of: Callable[[Group], EarlyStopper] | None = None
    slots: int = 1
    candidates: int = 4
    max_events: int | None = None
    moments: list[Moment] = field(default_factory=list)
    epochs: int = 0

    def run(self) -> Search:
        """The search at its end, or after `max_events` results and rungs."""
        warmups = WarmupLedger(key_of=lambda config: warmup_key(config, NO_DATA))
        search = make_search(
            self.spec,
            log=self.log,
            key_of=lambda config: trial_key(config, NO_DATA),
            warmups=warmups,
            stopper_of=self.stopper_of,
            candidates=self.candidates,
            elapsed=lambda: float(self.now),
        )
        self.search, self.now, self.order = search, 0, 0
        self.queue: list[tuple[int, int, str, TrialConfig, int]] = []
        for _, trial in list(search.unfinished()):
            if search.stop_reason(trial.key):
                search.stop(trial.key, max(trial.rungs), 0.0)
                continue
            self._begin(trial.key, trial.config, trial.cost, after=max(trial.rungs, default=0))
        events = 0
        while True:
            while len(self.queue) < self.slots and (begun := search.next_trial()) is not None:
                self._begin_new(begun)
            if not self.queue or (self.max_events is not None and events >= self.max_events):
                return search
            events += 1
            self._advance()

    def _begin_new(self, begun: SearchTrial) -> None:
        if not begun.is_finished:
            self._begin(begun.key, begun.config, self.search.trials(begun.key)[0].cost)

    def _begin(self, key: str, config: TrialConfig, cost: int, after: int = 0) -> None:
        start = self.now + cost - config.sparse_epochs
        self._push(start, key, config, after)

    def _push(self, start: int, key: str, config: TrialConfig, after: int) -> None:
        """Schedules the next rung of a trial, or its end; `start` is the time of its first sparse epoch."""
        rungs = [rung for rung in rungs_of(self.spec, config) if rung > after]
        epoch = rungs[0] if rungs else config.sparse_epochs
        self.order += 1
        heapq.heappush(self.queue, (start + epoch, self.order, key, config, epoch))

    def _advance(self) -> None:
        self.now, _, key, config, epoch = heapq.heappop(self.queue)
        curve = self.grid.accuracy(self._point(config))
        if epoch == config.sparse_epochs:
            self.search.finish(key, {METRIC: curve[-1]}, 0.0)
            self._note()
        elif self.search.at_rung(key, epoch, curve[epoch - 1]):
            self.search.stop(key, epoch, 0.0)
            self._note()
        else:
            self._push(self.now - epoch, key, config, epoch)

    def _point(self, config: TrialConfig) -> tuple[Any, ...]:
        values = dict(zip(self.grid.axes, point_of(config, self.grid.axes), strict=True))
        values["seed"] = self.seeds[config.seed]
        return tuple(values.values())

    def _note(self) -> None:
        leaders = {group.group.name: group.standings.leader() for group in self.search.groups}
        recommended = {name: dict(leader.values) for name, leader in leaders.items() if leader is not None}
        self.moments.append(Moment(self.search.meter.epochs, recommended))


def drawn_seeds(seeds: Sequence[int], replay: int) -> dict[int, int]:
    """The seeds of a grid in another order for each replay."""
    order = list(seeds)
    random.Random(replay).shuffle(order)
    return dict(zip(sorted(seeds), order, strict=True))
