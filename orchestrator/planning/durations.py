"""How long stages will take, from stages whose time is known: a mean, and a spread that counts in how few there were.

A stage takes a fixed time, and more for each epoch and each pruning round. What remains, the ratio of its real time to that,
is taken as log-normal with unknown mean and spread: ratios of other stages are drawn from its posterior predictive
distribution, so few or scattered times give a wide range.
"""

from __future__ import annotations

import json
import math
import random
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from trainables.config.keys import canonical
from trainables.config.method import Course
from trainables.config.spiking import SpikingConfig
from trainables.config.trial import DatasetConfig, TrialConfig

ENOUGH = 3  # times from which a spread can be estimated
WARMUP = "warm-up"  # stands for the method of a shared warm-up


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What a stage does.

    Attributes:
        network: stages with the same network, data and batch size have the same.
        epochs: those of levels and of a warm-up of its own included.
        rounds: of pruning before the training, without training between them.
    """

    network: str
    method: str
    epochs: int
    rounds: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Timed:
    """A stage whose time is known: in all, in its epochs and in its rounds."""

    work: Work
    seconds: float
    epoch_seconds: float
    round_seconds: float = 0.0


def network_of(config: TrialConfig) -> str:
    """Names what an epoch's time depends on, besides the machine."""
    training = config.training
    return _network(
        *(config.model, config.width, config.block, config.dataset, training.batch_size, config.precision, training.spiking)
    )


@lru_cache(maxsize=256)
def _network(
    model: str, width: int, block: str, dataset: DatasetConfig, batch_size: int, precision: str, spiking: SpikingConfig
) -> str:
    named = [model, width, block, canonical(dataset), batch_size, precision, canonical(spiking)]
    return json.dumps(named, sort_keys=True)


def trial_work(config: TrialConfig, *, trains_warmup: bool) -> Work:
    """The work of a trial.

    Args:
        trains_warmup: it trains its warm-up itself.
    """
    warmup = max(config.warmup_lengths, default=0) if trains_warmup else 0
    return Work(
        network=network_of(config),
        method=config.method,
        epochs=warmup + config.level_epochs + config.sparse_epochs,
        rounds=config.rounds if config.pruning.course in (Course.ONE_ROUND, Course.ROUNDS) else 0,
    )


def timed_trial(
    config: TrialConfig, metrics: Mapping[str, float], *, trains_warmup: bool, seconds: float | None = None
) -> Timed | None:
    """A finished trial; None if its metrics do not say how long it took.

    Args:
        config: with what the trial chose itself.
        seconds: that it held a slot; by default the sum of its phases.
    """
    if "cost/total_seconds" not in metrics:
        return None
    before = metrics.get("cost/warmup_seconds", 0.0)
    pruning = metrics.get("cost/search_seconds", before) - before
    training = metrics["cost/total_seconds"] - before - pruning
    warmup = before if trains_warmup else 0.0
    in_levels = pruning if config.pruning.course is Course.LEVELS else 0.0
    return Timed(
        work=trial_work(config, trains_warmup=trains_warmup),
        seconds=warmup + pruning + training if seconds is None else seconds,
        epoch_seconds=warmup + training + in_levels,
        round_seconds=pruning - in_levels,
    )


@dataclass(frozen=True)
class Pace:
    """What is known of the stages of one network."""

    stages: Sequence[Timed]

    @property
    def is_known(self) -> bool:
        return len(self.stages) >= ENOUGH and self._per_epoch is not None

    @cached_property
    def _per_epoch(self) -> float | None:
        epochs = sum(one.work.epochs for one in self.stages)
        return sum(one.epoch_seconds for one in self.stages) / epochs if epochs else None

    @cached_property
    def _per_round(self) -> dict[str, float]:
        """Method -> seconds of a round, of those that have rounds."""
        methods: dict[str, list[Timed]] = {}
        for one in self.stages:
            if one.work.rounds:
                methods.setdefault(one.work.method, []).append(one)
        return {
            method: sum(one.round_seconds for one in stages) / sum(one.work.rounds for one in stages)
            for method, stages in methods.items()
        }

    @cached_property
    def _fixed(self) -> float:
        rest = [one.seconds - one.epoch_seconds - one.round_seconds for one in self.stages if one.work.method != WARMUP]
        return max(0.0, statistics.median(rest)) if rest else 0.0

    def expected(self, work: Work) -> float | None:
        """Seconds that a stage takes on the whole; None if nothing is known of the rounds of its method."""
        changing = self.changing(work.method, work.epochs, work.rounds)
        fixed = 0.0 if work.method == WARMUP else self._fixed
        return None if changing is None else fixed + changing

    def changing(self, method: str, epochs: float, rounds: float) -> float | None:
        """The same without the fixed time of a stage. A single round hardly counts beside the epochs."""
        per_round = self._per_round.get(method)
        if per_round is None and rounds > 1:
            return None
        return (self._per_epoch or 0.0) * epochs + (per_round or 0.0) * rounds

    @cached_property
    def _log_ratios(self) -> dict[str, list[float]]:
        """Method -> logarithms of real over expected time."""
        ratios: dict[str, list[float]] = {}
        for one in self.stages:
            expected = self.expected(one.work)
            if expected and one.seconds > 0:
                ratios.setdefault(one.work.method, []).append(math.log(one.seconds / expected))
        return ratios

    def draw_ratios(self, draw: random.Random) -> Callable[[str], float]:
        """One possible truth: a function that draws the ratio of a stage of a method."""
        pooled = [ratio for ratios in self._log_ratios.values() for ratio in ratios]
        truths: dict[str, tuple[float, float]] = {}

        def ratio(method: str) -> float:
            if method not in truths:
                known = self._log_ratios.get(method, ())
                # A method with too few times may differ from the others by as much as all of them differ.
                truths[method] = _truth(known, draw) if len(known) >= ENOUGH else _truth(pooled, draw, other=True)
            mean, spread = truths[method]
            return math.exp(mean + spread * draw.gauss(0.0, 1.0)) if spread else math.exp(mean)

        return ratio


def _truth(values: Sequence[float], draw: random.Random, *, other: bool = False) -> tuple[float, float]:
    """A mean and a standard deviation from their posterior, with the usual prior that says nothing.

    Args:
        other: the mean of one more member of the population, instead of its own.
    """
    count, mean = len(values), statistics.fmean(values)
    squares = sum((value - mean) ** 2 for value in values)
    if squares == 0:
        return mean, 0.0
    spread = math.sqrt(squares / draw.gammavariate((count - 1) / 2, 2))
    return draw.gauss(mean, spread * math.sqrt(1 / count + other)), spread


@dataclass
class Paces:
    """The paces of all networks."""

    stages: dict[str, list[Timed]] = field(default_factory=dict)

    @classmethod
    def of(cls, stages: Iterable[Timed]) -> Paces:
        known: dict[str, list[Timed]] = {}
        for one in stages:
            known.setdefault(one.work.network, []).append(one)
        return cls(known)

    def __getitem__(self, network: str) -> Pace:
        return Pace(self.stages.get(network, ()))
