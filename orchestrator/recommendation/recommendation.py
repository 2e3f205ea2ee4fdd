"""The recommendation for each group of a sweep: what to take, what it gives, how sure that is, and what it costs.

Validation values alone decide; test accuracy is shown and decides nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.recommendation.choice import Choice, choose
from orchestrator.recommendation.estimate import LEVEL
from orchestrator.recommendation.group_results import ConfigurationResults, GroupResults, group_results
from orchestrator.recommendation.paired_test import Difference, paired_difference
from orchestrator.search.rules import POINTS, unit_of
from orchestrator.spec.schema import SweepSpec
from orchestrator.spec.search_schema import Seeds
from orchestrator.state.earlier_files import EarlierFile, Files, earlier_files
from orchestrator.state.sweep_state import SweepState, TrialStatus

COST = "cost/total_dense_epochs"
VALIDATION = "val/accuracy"
GAIN_AXES = ("warmup_epochs", "prune_iterations")


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What the next larger value of an axis gives, all else equal.

    Attributes:
        difference: of the objective, larger is better.
        interval: of the difference at 95 %; None where noise is not known.
    """

    axis: str
    value: int
    next_value: int
    difference: float
    interval: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class AgainstDense:
    """The best configuration beside the dense baseline; None where a figure is not known.

    Attributes:
        difference: of the objective over the seeds that both have, dense minus sparse, larger is worse.
        times_smaller: all parameters over the kept ones.
        times_fewer_flops: multiply-adds of the dense network over those of the kept weights.
    """

    difference: Difference | None
    times_smaller: float | None
    times_fewer_flops: float | None


@dataclass(frozen=True, kw_only=True, repr=False)
class Recommendation:
    """The recommendation for one group; `choice` holds the numbers of the configurations in `results`.

    Attributes:
        indifference: difference that does not matter, in the unit of the objective.
        gains: what more of each axis gives, where that was tried.
        earlier_files: of the user's, that some of the compared trials were made with.
        epochs: mean cost of the best and of the cheapest configuration, in epochs of the trial; None where it is not known.
    """

    results: GroupResults
    choice: Choice
    indifference: float
    gains: tuple[Gain, ...]
    dense: AgainstDense
    epochs: tuple[float | None, float | None]
    earlier_files: tuple[EarlierFile, ...] = ()

    def __repr__(self) -> str:
        return f"Recommendation({self.name!r}, {dict(self.best.values)}, {self.choice.certainty.value})"

    @property
    def name(self) -> str:
        return self.results.group.name

    @property
    def best(self) -> ConfigurationResults:
        return self.results.configurations[self.choice.best]

    @property
    def cheapest(self) -> ConfigurationResults | None:
        """The cheapest configuration that is not shown to be worse; None if that is the best itself."""
        chosen = self.choice.cheapest
        return None if chosen == self.choice.best else self.results.configurations[chosen]

    @property
    def seed_metric(self) -> str:
        """What the seeds of the best configuration are compared by: the objective where validation accuracy is not known."""
        return VALIDATION if self.best.metric(VALIDATION) else self.results.objective

    @property
    def best_trial(self) -> TrialStatus:
        """The best seed of the best configuration by `seed_metric`; of equal ones the lowest."""
        sign = 1 if self.seed_metric == VALIDATION else self.results.sign
        values = self.best.metric(self.seed_metric)
        return self.best.trials[min(values, key=lambda seed: (-sign * values[seed], seed))]

    @property
    def keys(self) -> frozenset[str]:
        """Keys of the finished trials of the best configuration."""
        return frozenset(trial.key for trial in self.best.trials.values())

    @property
    def is_accuracy(self) -> bool:
        return _is_accuracy(self.results.objective)

    @property
    def interval(self) -> tuple[float, float] | None:
        """What the objective lies in at 95 % on further seeds, in its own direction; of accuracies within 0..1."""
        if self.choice.estimate.interval is None:
            return None
        low, high = sorted(self.results.sign * bound for bound in self.choice.estimate.interval)
        return (max(0.0, low), min(1.0, high)) if self.is_accuracy else (low, high)


def _is_accuracy(objective: str) -> bool:
    return unit_of(objective) == POINTS


def recommendations(
    spec: SweepSpec,
    state: SweepState,
    recommended: Mapping[str, frozenset[str]] | None = None,
    kept: Mapping[str, Files] | None = None,
) -> list[Recommendation]:
    """The recommendation for each group with a finished trial, in the order of the file.

    Args:
        recommended: of a search, group -> keys of the trials of the configuration that it has recommended.
        kept: trials that were made with earlier files of the user's (`kept_trials`).
    """
    chosen = recommended or {}
    return [
        replace(
            _recommendation(one, _indifference(spec, one.objective), chosen.get(one.group.name, frozenset())),
            earlier_files=tuple(earlier_files(kept or {}, _compared(one))),
        )
        for one in group_results(spec, state)
        if one.configurations
    ]


def _compared(results: GroupResults) -> set[str]:
    """Keys of all trials that a recommendation looks at."""
    sparse = (trial.key for one in results.configurations for trial in one.trials.values())
    return {*sparse, *(trial.key for trial in results.dense.values())}


def _indifference(spec: SweepSpec, objective: str) -> float:
    if spec.seeds:
        return spec.seeds.indifference * unit_of(objective)
    return Seeds.model_fields["indifference"].default * POINTS if _is_accuracy(objective) else 0.0


def _recommendation(results: GroupResults, indifference: float, recommended: frozenset[str]) -> Recommendation:
    configurations = dict(enumerate(results.configurations))
    values = {
        number: {seed: results.sign * value for seed, value in one.metric(results.objective).items()}
        for number, one in configurations.items()
    }
    costs = {number: one.mean(COST) for number, one in configurations.items()}
    by_search = (number for number, one in configurations.items() if any(t.key in recommended for t in one.trials.values()))
    choice = choose(values, {n: _or_infinite(cost) for n, cost in costs.items()}, indifference, next(by_search, None))
    best = configurations[choice.best]
    return Recommendation(
        results=results,
        choice=choice,
        indifference=indifference,
        gains=tuple(_gains(results, choice)),
        dense=_against_dense(results, best),
        epochs=(costs[choice.best], costs[choice.cheapest]),
    )


def _or_infinite(cost: float | None) -> float:
    return float("inf") if cost is None else cost


def _gains(results: GroupResults, choice: Choice) -> list[Gain]:
    best = results.configurations[choice.best].values
    gains = []
    for axis in GAIN_AXES:
        longer = {
            one.values[axis]: number
            for number, one in enumerate(results.configurations)
            if axis in best and one.values[axis] > best[axis] and {**one.values, axis: best[axis]} == best
        }
        if longer:
            value = min(longer)
            number = longer[value]
            difference = choice.fit.means[number] - choice.fit.means[choice.best]
            reach = choice.fit.reach(number, choice.best, LEVEL / 2)
            known = choice.fit.noise.freedom > 0
            interval = (difference - reach, difference + reach) if known else None
            gains.append(Gain(axis=axis, value=best[axis], next_value=value, difference=difference, interval=interval))
    return gains


def _against_dense(results: GroupResults, best: ConfigurationResults) -> AgainstDense:
    values = best.metric(results.objective)
    shared = [seed for seed in values if seed in results.dense]
    difference = None
    if shared:
        dense = {seed: results.sign * results.dense[seed].metrics[results.objective] for seed in shared}
        difference = paired_difference(dense, {seed: results.sign * values[seed] for seed in shared})
    return AgainstDense(
        difference=difference,
        times_smaller=best.mean("model/compression_ratio"),
        times_fewer_flops=best.mean("model/theoretical_speedup"),
    )


def to_json(one: Recommendation) -> dict[str, Any]:
    """The recommendation for `report --json`; null where a figure is not known."""
    choice, sign = one.choice, one.results.sign
    difference = one.dense.difference
    return {
        "group": one.name,
        "objective": one.results.objective,
        "configuration": dict(one.best.values),
        "trials": sorted(one.keys),
        "seeds": len(one.best.trials),
        "mean": statistics.fmean(one.best.metric(one.results.objective).values()),
        "estimate": sign * choice.estimate.mean,
        "interval": one.interval,
        "certainty": choice.certainty.value,
        "rivals": len(choice.rivals),
        "more_seeds": choice.more_seeds,
        "indifference": one.indifference,
        "epochs": one.epochs[0],
        "cheapest": {"configuration": dict(one.cheapest.values), "epochs": one.epochs[1]} if one.cheapest else None,
        "gains": [
            {
                "axis": gain.axis,
                "value": gain.value,
                "next": gain.next_value,
                "difference": gain.difference,
                "interval": gain.interval,
            }
            for gain in one.gains
        ],
        "dense": {
            "lost": difference and difference.mean,
            "interval": difference and difference.interval,
            "times_smaller": one.dense.times_smaller,
            "times_fewer_multiply_adds": one.dense.times_fewer_flops,
        },
        "earlier_files": [file.to_json() for file in one.earlier_files],
    }
