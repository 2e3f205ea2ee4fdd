"""The range of the time left against sweeps whose stages take known times, played through to their end."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.execution.time_left import TimeLeft
from orchestrator.scheduling.queued_stage import QueuedStage
from orchestrator.scheduling.stage_queue import StageQueue
from orchestrator.state.sweep_state import SweepState, TrialStatus, WarmupStatus
from tests.support.trials import tiny_config, tiny_training
from trainables.config.keys import canonical, complete, from_canonical
from trainables.config.trial import TrialConfig

SLOTS, EPOCH_S, ROUND_S, FIXED_S, WARMUPS = 3, 40.0, 2.0, 15.0, 2


class Simulation:
    """A sweep on three slots, whose driver knows the reports that a real one would have.

    Attributes:
        now: the simulated time.
        ends: stage -> when it will end.
    """

    def __init__(self, seed: int, noise: float = 0.1) -> None:
        self.draw, self.noise = random.Random(seed), noise
        self.now = 0.0
        self.ends: dict[str, float] = {}
        self.seconds: dict[str, float] = {}
        self.state = SweepState(sweep="s")
        trials, warmups = {}, {}
        for index in range(WARMUPS):
            config = tiny_config(seed=index)
            warmups[f"w{index}"] = stage("warmup", f"w{index}", config, lengths=(2, 8))
            self.state.warmups[f"w{index}"] = WarmupStatus(key=f"w{index}", name=f"w{index}", state="waiting", epochs=8)
            for warmup in (0, 2, 8):
                for rounds in (1, 30):
                    key = f"t{index}-{warmup}-{rounds}"
                    config = tiny_config(
                        seed=index, warmup_epochs=warmup, prune_iterations=rounds, training=tiny_training(epochs=10)
                    )
                    shared = f"w{index}" if warmup else None
                    trials[key] = stage("trial", key, config, warmup_key=shared, lengths=config.warmup_lengths)
                    status = TrialStatus(key=key, name=key, state="waiting", config=complete(config))
                    self.state.trials[key] = status
        self.queue = StageQueue(warmups=warmups, trials=trials, clock=lambda: self.now)
        driver: Any = SimpleNamespace(state=self.state, queue=self.queue, writer=SimpleNamespace(lock=nullcontext()))
        self.left = TimeLeft(driver=driver, slots=lambda: SLOTS, clock=lambda: self.now)

    def status(self, one: QueuedStage) -> Any:
        return self.state.warmups[one.key] if one.is_warmup else self.state.trials[one.key]

    def steps(self) -> Iterator[None]:
        """Plays the sweep; yields after each stage that has ended."""
        while True:
            while len(self.queue.active()) < SLOTS and (one := self.queue.next_stage()) is not None:
                self.begin(one)
            if not self.queue.active():
                return
            ended = min(self.queue.active(), key=lambda each: self.ends[each.key])
            self.now = self.ends[ended.key]
            for each in self.queue.active():
                self.report(each)
            self.end(ended)
            yield

    def begin(self, one: QueuedStage) -> None:
        config = tiny_of(one)
        luck = self.draw.lognormvariate(0, self.noise)
        epochs = one.longest if one.is_warmup else config.sparse_epochs
        rounds = 0 if one.is_warmup else config.rounds
        self.seconds[one.key] = luck * (EPOCH_S * epochs + ROUND_S * rounds + (0 if one.is_warmup else FIXED_S))
        self.ends[one.key] = self.now + self.seconds[one.key]
        self.queue.on_start(one)
        self.status(one).state = "running"

    def report(self, one: QueuedStage) -> None:
        """Its position, as if all of its time were training."""
        status, share = self.status(one), 1 - (self.ends[one.key] - self.now) / self.seconds[one.key]
        epochs = one.longest if one.is_warmup else tiny_of(one).sparse_epochs
        status.position = int(share * epochs)
        if one.is_warmup:
            self.queue.on_snapshot(one.key, one.published_after(status.position))
        else:
            status.phase = "train"

    def end(self, one: QueuedStage) -> None:
        status, config = self.status(one), tiny_of(one)
        status.state, status.seconds = "finished", self.seconds[one.key]
        if one.is_warmup:
            status.trained_epochs = one.longest
        else:
            training, pruning = EPOCH_S * config.sparse_epochs, ROUND_S * config.rounds
            luck = status.seconds / (training + pruning + FIXED_S)
            status.metrics = {
                "cost/warmup_seconds": 0.0,
                "cost/search_seconds": pruning * luck,
                "cost/total_seconds": (pruning + training) * luck,
            }
        self.queue.on_end(one)

    def ranges(self) -> list[tuple[float, tuple[float, float] | None]]:
        """Of each step: its time, and the range that was shown then."""
        return [(self.now, self.left.estimate()[0]) for _ in self.steps()]


def stage(kind: Any, key: str, config: TrialConfig, **fields: Any) -> QueuedStage:
    return QueuedStage(kind=kind, key=key, name=key, config=canonical(config), work=config.rounds + 100, **fields)


def tiny_of(one: QueuedStage) -> TrialConfig:
    return from_canonical(TrialConfig, one.config)


def test_nothing_is_said_before_three_stages_have_ended() -> None:
    sweep = Simulation(0)
    assert sweep.left.estimate() == (None, "too few stages have ended")
    ranges = [found for _, found in sweep.ranges()]
    known = [found is not None for found in ranges]
    assert known == sorted(known)
    assert 2 <= known.index(True) <= 5


def test_exact_times_give_an_exact_end() -> None:
    sweep = Simulation(0, noise=0.0)
    ranges = sweep.ranges()
    late = [(at, found) for at, found in ranges if found is not None]
    assert late
    for at, found in late:
        assert found == pytest.approx((sweep.now - at, sweep.now - at), rel=0.08, abs=EPOCH_S)  # a position is whole epochs


def test_most_ranges_hold_the_end() -> None:
    held = wide = shown = 0
    for seed in range(12):
        sweep = Simulation(seed, noise=0.15)
        for at, found in sweep.ranges():
            if found is not None and at < sweep.now:
                shown += 1
                held += found[0] <= sweep.now - at <= found[1]
                wide += found[1] > 3 * max(found[0], EPOCH_S)
    assert shown > 80
    assert held / shown == pytest.approx(0.9, abs=0.07)
    assert wide / shown < 0.2


def test_a_range_that_tells_nothing_is_not_shown() -> None:
    reasons, widths = set(), []
    sweep = Simulation(0, noise=3.0)
    for _ in sweep.steps():
        found, reason = sweep.left.estimate()
        reasons.add(reason)
        widths += [found[1] / max(found[0], 5.0)] if found else []
    assert "the times of the first stages differ too much" in reasons
    assert max(widths, default=0.0) <= 20


def test_while_a_search_may_add_trials_it_says_why_it_cannot_know() -> None:
    sweep = Simulation(0)
    sweep.state.settled = False
    assert sweep.left.estimate() == (None, "the search decides what else to run")


def test_without_room_it_says_so() -> None:
    sweep = Simulation(0)
    sweep.left.slots = lambda: 0
    assert sweep.left.estimate() == (None, "there is no room for a trial")


def test_the_state_has_range_and_slots_after_a_tick() -> None:
    sweep = Simulation(0)
    for _ in sweep.steps():
        sweep.left.not_before = 0.0
        sweep.left.on_tick()
    assert sweep.state.progress.slots == SLOTS
    assert sweep.state.progress.seconds_left == (0.0, 0.0)


def test_a_method_whose_rounds_nobody_has_seen_is_named() -> None:
    sweep = Simulation(0)
    other = tiny_config(method="synflow", prune_iterations=100)
    sweep.state.trials["other"] = TrialStatus(key="other", name="other", state="waiting", config=complete(other))
    sweep.queue.trials["other"] = stage("trial", "other", other)
    for _, found in zip(range(8), sweep.steps(), strict=False):
        assert found is None
    assert sweep.left.estimate() == (None, "no trial of synflow has ended")
