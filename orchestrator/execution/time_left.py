"""How much longer a sweep will run: the range in which nine of ten possible courses of what is left end."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from orchestrator.execution.driver import Driver
from orchestrator.planning.durations import WARMUP, Pace, Paces, Timed, Work, network_of, timed_trial, trial_work
from orchestrator.planning.makespan import Waiting, makespan
from orchestrator.scheduling.queued_stage import QueuedStage, StageState
from orchestrator.state.sweep_state import TrialStatus, WarmupStatus
from trainables.config.automatic import as_chosen
from trainables.config.keys import from_canonical
from trainables.config.trial import TrialConfig

INTERVAL_S = 5.0
INTERVAL_FACTOR = 50.0  # times the duration of the last estimate
COURSES = 60
LEFT_OUT = 0.05  # of the courses, at each end
WIDEST = 20.0  # the most over the least; a wider range tells nothing
LONG_ENOUGH_S = 10.0  # that a phase of a running stage has to be watched


@dataclass(slots=True)
class Watched:
    """One phase of a running stage: its position at the first report, and at the last one."""

    is_pruning: bool
    since: float
    first: int
    last: float
    position: int


@dataclass(kw_only=True)
class TimeLeft:
    """Keeps the range in the state of a running sweep up to date.

    Attributes:
        slots: how many stages can run now.
        watched: stage key -> phase -> what is seen of it.
    """

    driver: Driver
    slots: Callable[[], int]
    clock: Callable[[], float] = time.monotonic
    not_before: float = 0.0
    watched: dict[str, dict[str, Watched]] = field(default_factory=dict)
    _works: dict[str, Work] = field(default_factory=dict)

    def on_tick(self) -> None:
        """Estimates anew if it is time."""
        started = self.clock()
        self._watch(started)
        if started < self.not_before:
            return
        progress = self.driver.state.progress
        progress.slots = self.slots()
        seconds, reason = self.estimate()
        progress.seconds_left, progress.left_unknown = seconds, reason
        self.not_before = self.clock() + max(INTERVAL_S, INTERVAL_FACTOR * (self.clock() - started))

    def estimate(self) -> tuple[tuple[float, float] | None, str]:
        """The least and the most seconds, or None and why that is not known."""
        if not self.driver.state.settled:
            return None, "the search decides what else to run"
        stages = self.driver.queue.stages()
        left = [stage for stage in stages if stage.state in (StageState.WAITING, StageState.DISPATCHED, StageState.RUNNING)]
        if not left:
            return (0.0, 0.0), ""
        slots = self.slots()
        if not slots:
            return None, "there is no room for a trial"
        paces = Paces.of(self._timed(stages))
        expected: dict[str, float] = {}
        known = {network: paces[network] for network in {self._work(stage).network for stage in left}}
        for stage in left:
            pace = known[self._work(stage).network]
            seconds = pace.expected(self._work(stage))
            if not pace.is_known:
                return None, "too few stages have ended"
            if seconds is None:
                return None, f"no trial of {self._work(stage).method} has ended"
            expected[stage.key] = seconds
        draw = random.Random(0)
        ends = sorted(self._course(left, known, expected, slots, draw) for _ in range(COURSES))
        out = int(LEFT_OUT * COURSES)
        least, most = ends[out], ends[-1 - out]
        if most > WIDEST * max(least, INTERVAL_S):
            return None, "the times of the first stages differ too much"
        return (least, most), ""

    def _course(
        self,
        left: Sequence[QueuedStage],
        paces: dict[str, Pace],
        expected: dict[str, float],
        slots: int,
        draw: random.Random,
    ) -> float:
        """Seconds until the end in one possible course."""
        ratios = {network: pace.draw_ratios(draw) for network, pace in paces.items()}
        running: dict[str, float] = {}
        warmups: dict[str, float] = {}
        trials: list[tuple[int, Waiting]] = []
        lengths = {stage.key: stage.longest for stage in left if stage.is_warmup}
        for stage in left:
            work = self._work(stage)
            seconds = expected[stage.key] * ratios[work.network](work.method)
            if stage.state is StageState.RUNNING:
                left_of_it = self._share_left(stage, paces[work.network], expected[stage.key], draw.random())
                running[stage.key] = seconds * left_of_it
            elif stage.is_warmup:
                warmups[stage.key] = seconds
            else:
                key = stage.warmup_key or ""
                published = self.driver.queue.published.get(key, 0) >= stage.longest
                waits = key in lengths and not published
                share = stage.longest / lengths[key] if waits else 0.0
                trials.append((-stage.work, Waiting(seconds, key if waits else "", share)))
        trials.sort(key=lambda one: one[0])
        return makespan(slots, running, warmups, [trial for _, trial in trials])

    def _share_left(self, stage: QueuedStage, pace: Pace, whole: float, since: float) -> float:
        """Of a running stage, by its position.

        Args:
            since: share of an epoch or round that has passed since that position.
        """
        status, work = self._status(stage), self._work(stage)
        if isinstance(status, WarmupStatus):
            return max(0.0, 1 - (status.position + since) / max(1, stage.longest))
        if status.phase == "prune":
            epochs, rounds = float(status.sparse_epochs), work.rounds - status.position - since
        elif status.phase == "level":
            epochs, rounds = work.epochs - status.position - since, 0.0
        elif status.phase == "train":
            epochs, rounds = status.sparse_epochs - status.position - since, 0.0
        else:
            return 1.0
        left = pace.changing(work.method, max(0.0, epochs), max(0.0, rounds))
        return min(1.0, (left or 0.0) / whole) if whole else 0.0

    def _timed(self, stages: Sequence[QueuedStage]) -> Iterator[Timed]:
        """The stages that have ended in this run, and what is seen of those that run."""
        for stage in stages:
            status = self._status(stage)
            if stage.state is StageState.FINISHED and status.seconds:
                if isinstance(status, TrialStatus):
                    chosen = as_chosen(self._config(stage), status.metrics)
                    trains_warmup = stage.warmup_key is None
                    if timed := timed_trial(chosen, status.metrics, trains_warmup=trains_warmup, seconds=status.seconds):
                        yield timed
                elif status.trained_epochs:
                    work = Work(network=self._work(stage).network, method=WARMUP, epochs=status.trained_epochs)
                    yield Timed(work=work, seconds=status.seconds, epoch_seconds=status.seconds)
            elif stage.state is StageState.RUNNING:
                for one in self.watched.get(stage.key, {}).values():
                    if one.last - one.since >= LONG_ENOUGH_S:
                        yield _seen(self._work(stage), one)

    def _watch(self, now: float) -> None:
        """Notes the positions of the running stages."""
        for stage in self.driver.queue.active():
            status = self._status(stage)
            phase = "warmup" if isinstance(status, WarmupStatus) else status.phase
            if stage.state is not StageState.RUNNING or not phase or not status.position:
                continue
            phases = self.watched.setdefault(stage.key, {})
            one = phases.get(phase)
            if one is None or status.position < one.position:
                phases[phase] = Watched(phase == "prune", now, status.position, now, status.position)
            elif status.position > one.position:
                one.last, one.position = now, status.position

    def _status(self, stage: QueuedStage) -> TrialStatus | WarmupStatus:
        state = self.driver.state
        return state.warmups[stage.key] if stage.is_warmup else state.trials[stage.key]

    def _work(self, stage: QueuedStage) -> Work:
        if stage.is_warmup:  # it may become longer
            network = self._works.get(stage.key) or Work(network=network_of(self._config(stage)), method=WARMUP, epochs=0)
            self._works[stage.key] = network
            return Work(network=network.network, method=WARMUP, epochs=stage.longest)
        if stage.key not in self._works:
            self._works[stage.key] = trial_work(self._config(stage), trains_warmup=stage.warmup_key is None)
        return self._works[stage.key]

    def _config(self, stage: QueuedStage) -> TrialConfig:
        return from_canonical(TrialConfig, stage.config)


def _seen(work: Work, one: Watched) -> Timed:
    """What a running stage has done in a phase."""
    seconds, count = one.last - one.since, one.position - one.first
    if one.is_pruning:
        part = Work(network=work.network, method=work.method, epochs=0, rounds=count)
        return Timed(work=part, seconds=seconds, epoch_seconds=0.0, round_seconds=seconds)
    part = Work(network=work.network, method=work.method, epochs=count)
    return Timed(work=part, seconds=seconds, epoch_seconds=seconds)
