"""What a search costs: at most, typically, and beside the full grid. All of it is computed before anything runs."""

from __future__ import annotations

import bisect
import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.search.decided_trials import baselines
from orchestrator.search.early_stopping import asha_rungs
from orchestrator.search.groups import Group, groups_of, seeds_of
from orchestrator.search.space import Axis, Space
from orchestrator.spec.ranges import Range
from trainables.config.keys import warmup_key
from trainables.config.trial import TrialConfig

if TYPE_CHECKING:
    from orchestrator.spec.schema import SweepSpec

MAX_LISTED = 2000  # configurations of a group that are looked at one by one; of a larger space only its bounds
SIMULATIONS = 40
MEDIAN_SAMPLES = 3  # trials that the median rule sees before it stops one


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Trials, and the epochs that they train, each shared warm-up once."""

    trials: int
    epochs: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(trials=self.trials + other.trials, epochs=self.epochs + other.epochs)


@dataclass(frozen=True, kw_only=True)
class SearchCost:
    """The cost of a search from its start, with its dense baselines.

    Attributes:
        most: no search with these settings costs more.
        typical: an estimate from the rules, see `_typical`.
        dense: the baselines, which are part of all others.
        grid: every configuration with every seed; None if the space is infinite or too large to add up.
    """

    most: Cost
    typical: Cost
    grid: Cost | None
    dense: Cost


@dataclass(frozen=True, kw_only=True)
class _Members:
    """Trials of one group with one seed.

    Attributes:
        configs: all of its space if `complete`, else those at its bounds.
        count: how many the search tries at most.
    """

    configs: Sequence[TrialConfig]
    complete: bool
    count: int

    def longest(self, lengths: Sequence[int]) -> list[int]:
        """The largest of the lengths, one for each configuration that the search may try."""
        ranked = sorted(lengths, reverse=True)
        return ranked[: self.count] if self.complete else ranked[:1] * self.count

    @property
    def trained(self) -> list[int]:
        return [config.level_epochs + config.sparse_epochs for config in self.configs]

    @property
    def warmups(self) -> list[int]:
        return [max(config.warmup_lengths, default=0) for config in self.configs]


def search_cost(spec: SweepSpec) -> SearchCost:
    """The cost of the search that a sweep file describes.

    At most: the longest configurations of the space, each with all seeds, none stopped early. `budget.epochs` and
    `budget.configurations` bound it; hours do not, since the speed is not known.
    """
    first, further = seeds_of(spec)
    seeds = len(first) + len(further)
    members = [_members(spec, group) for group in groups_of(spec)]
    dense = baselines(spec)
    base = Cost(trials=len(dense), epochs=sum(config.sparse_epochs for config in dense))
    everything = _everything(spec, members, _limit(spec, members), seeds)
    most = Cost(trials=everything.trials, epochs=_within_budget(spec, everything.epochs))
    typical = _typical(spec, members, len(first), len(further))
    epochs = min(_within_budget(spec, typical.epochs), most.epochs)
    typical = Cost(trials=round(typical.trials * epochs / max(1, typical.epochs)), epochs=epochs)
    grid = None
    if all(one.complete for one in members):
        whole = [_Members(configs=one.configs, complete=True, count=len(one.configs)) for one in members]
        grid = base + _everything(spec, whole, sum(one.count for one in whole), seeds)
    return SearchCost(most=base + most, typical=base + typical, grid=grid, dense=base)


def _members(spec: SweepSpec, group: Group) -> _Members:
    complete = group.space.size <= MAX_LISTED
    space = group.space if complete else _bounds(group.space)
    configs = list(dict.fromkeys(group.trial(values, spec.seed) for values in space.grid()))
    size = len(configs) if complete else group.space.size
    count = min(size, spec.strategy.configurations or math.inf, (spec.budget and spec.budget.configurations) or math.inf)
    return _Members(configs=configs, complete=complete, count=int(count))


def _bounds(space: Space) -> Space:
    """The space with the two bounds of each range in its place; costs grow or fall evenly between them."""
    axes = ((axis, axis.values) for axis in space.axes)
    return Space(
        tuple(Axis(axis.key, (values.min, values.max)) if isinstance(values, Range) else axis for axis, values in axes)
    )


def _limit(spec: SweepSpec, members: Sequence[_Members]) -> int:
    """Configurations of all groups together."""
    total = sum(one.count for one in members)
    return min(total, (spec.budget and spec.budget.configurations) or total)


def _within_budget(spec: SweepSpec, epochs: int) -> int:
    return min(epochs, (spec.budget and spec.budget.epochs) or epochs)


def _everything(spec: SweepSpec, members: Sequence[_Members], configurations: int, seeds: int) -> Cost:
    """The longest `configurations` of the groups with so many seeds each, to their end."""
    trained = sorted((length for one in members for length in one.longest(one.trained)), reverse=True)[:configurations]
    unshared = sorted((length for one in members for length in one.longest(one.warmups)), reverse=True)[:configurations]
    warmups = min(sum(unshared), _shared_warmups(spec, members))
    return Cost(trials=configurations * seeds, epochs=round((sum(trained) + warmups) * seeds))


def _shared_warmups(spec: SweepSpec, members: Sequence[_Members]) -> float:
    """Epochs of all warm-ups of one seed, each once; infinite if there may be more of them than are known."""
    keys: list[set[str]] = []
    longest: dict[str, int] = {}
    for one in members:
        keys.append(set())
        for config, length in zip(one.configs, one.warmups, strict=True):
            key = warmup_key(config, "")
            keys[-1].add(key)
            longest[key] = max(length, longest.get(key, 0))
    known = all(one.complete or len(group) == 1 for one, group in zip(members, keys, strict=True))
    return sum(longest.values()) if spec.share_warmups and known else math.inf


@dataclass(frozen=True, kw_only=True)
class _FirstSeeds:
    """What the first seeds of a group's configurations come to, on average.

    Attributes:
        trials: that begin.
        sparse_epochs: that they train together.
        finished: configurations all of whose first seeds reach the end.
    """

    trials: float
    sparse_epochs: float
    finished: float


def _typical(spec: SweepSpec, members: Sequence[_Members], first: int, further: int) -> Cost:
    """An estimate from the rules, with configurations of mean length that come in random order.

    asha is played with values that are the same at every rung and for every seed (`_successive_halving`). median: half of the
    configurations after the first few stop at the first rung. A configuration that was stopped gets no other seed. Those that
    are left race: each look at their seeds leaves half of them (two after a look at single seeds), until one is left. A
    further seed trains one warm-up of mean length.
    """
    share = _limit(spec, members) / max(1, sum(one.count for one in members))
    trials = epochs = warmups = 0.0
    for one in members:
        trained, warmup = statistics.fmean(one.trained), statistics.fmean(one.warmups)
        sparse = statistics.fmean(config.sparse_epochs for config in one.configs)
        begun = _first_seeds(spec, one.count * share, first, round(sparse))
        rounds = _race(begun.finished, first, further)
        trials += begun.trials + sum(rounds)
        epochs += begun.trials * (trained - sparse) + begun.sparse_epochs + sum(rounds) * trained
        epochs += warmup * (len(rounds) if spec.share_warmups else sum(rounds))
        warmups += begun.trials * warmup
    shared = _shared_warmups(spec, members) * first
    return Cost(trials=round(trials), epochs=round(epochs + min(warmups, shared)))


def _first_seeds(spec: SweepSpec, count: float, first: int, epochs: int) -> _FirstSeeds:
    rule = spec.early_stopping
    if rule is not None and rule.name == "asha":
        return _successive_halving(
            round(count), first, rule.reduction, asha_rungs(rule.grace_epochs, rule.reduction, epochs), epochs
        )
    finished = count
    if rule is not None and rule.grace_epochs < epochs:
        finished = (count + min(count, MEDIAN_SAMPLES)) / 2
    stopped = count - finished
    stopped_epochs = rule.grace_epochs if rule is not None else 0
    return _FirstSeeds(
        trials=stopped + finished * first,
        sparse_epochs=stopped * stopped_epochs + finished * first * epochs,
        finished=finished,
    )


def _successive_halving(count: int, first: int, reduction: int, rungs: Sequence[int], epochs: int) -> _FirstSeeds:
    """The mean of SIMULATIONS with so many configurations in random order, one trial after the other.

    A trial goes on that reaches the quantile 1 - 1/reduction of those before it at the rung, so the first few do.
    """
    trials = trained = finished = 0
    for simulation in range(SIMULATIONS):
        draw = random.Random(simulation)
        arrived: list[list[float]] = [[] for _ in rungs]
        for _ in range(count):
            value, seeds = draw.random(), 0
            stopped_at = None
            while seeds < first and stopped_at is None:
                at_rungs = zip(rungs, arrived, strict=True)
                stopped_at = next((rung for rung, before in at_rungs if _stops(value, before, reduction)), None)
                seeds += 1
                trained += epochs if stopped_at is None else stopped_at
            trials += seeds
            finished += stopped_at is None
    return _FirstSeeds(trials=trials / SIMULATIONS, sparse_epochs=trained / SIMULATIONS, finished=finished / SIMULATIONS)


def _stops(value: float, before: list[float], reduction: int) -> bool:
    """Whether a trial stops at a rung; its value joins those `before` it."""
    cutoff = value
    if before:
        position = (1 - 1 / reduction) * (len(before) - 1)
        low = before[math.floor(position)]
        cutoff = low + (position - math.floor(position)) * (before[math.ceil(position)] - low)
    bisect.insort(before, value)
    return value < cutoff


def _race(contenders: float, first: int, further: int) -> list[float]:
    """How many trials each further seed gets."""
    rounds, left = [], math.ceil(contenders)
    for seed in range(further):
        least = 2 if first == 1 and seed == 0 else 1  # single seeds show no noise, so nobody is better yet
        left = min(left, max(least, math.ceil(left / 2)))
        if left <= 1:
            break
        rounds.append(float(left))
    return rounds
