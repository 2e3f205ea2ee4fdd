"""The finished trials of each group of a sweep: which configurations there are, and what their seeds gave.

A group has one method and one value of every axis that is not part of a configuration (search/groups.py); nothing else is
compared.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.search.groups import Group, groups_of
from orchestrator.spec.grid import configured, dense_baseline
from orchestrator.spec.schema import SweepSpec
from orchestrator.spec.trial_names import value_at
from orchestrator.state.sweep_state import SweepState, TrialStatus
from trainables.config.keys import from_canonical
from trainables.config.trial import TrialConfig


@dataclass(frozen=True, kw_only=True)
class ConfigurationResults:
    """One configuration of a group.

    Attributes:
        values: of the axes that make up a configuration, without those that its method has no use for.
        trials: seed -> its finished trial.
    """

    values: Mapping[str, Any]
    config: TrialConfig
    trials: Mapping[int, TrialStatus]

    def metric(self, name: str) -> dict[int, float]:
        """Seed -> the value of a metric, where it is known."""
        return {seed: trial.metrics[name] for seed, trial in self.trials.items() if name in trial.metrics}

    def mean(self, name: str) -> float | None:
        known = list(self.metric(name).values())
        return statistics.fmean(known) if known else None


@dataclass(frozen=True, kw_only=True)
class GroupResults:
    """One group.

    Attributes:
        objective: the metric that is compared.
        sign: 1 if more of it is better, otherwise -1.
        configurations: those with a value of the objective.
        dense: seed -> finished dense baseline that differs in nothing but pruning.
        unfinished: configurations without a finished trial.
    """

    group: Group
    objective: str
    sign: int
    configurations: tuple[ConfigurationResults, ...]
    dense: Mapping[int, TrialStatus]
    unfinished: int


def group_results(spec: SweepSpec, state: SweepState) -> list[GroupResults]:
    """The groups of a sweep in the order of its file; none with several objectives, which have no single best."""
    if len(spec.objective) > 1:
        return []
    ((objective, direction),) = spec.objective.items()
    gathered = [_Gathered(group, corner=group.trial(group.space.first(), spec.seed)) for group in groups_of(spec)]
    dense: dict[TrialConfig, dict[int, TrialStatus]] = {}
    for trials in _by_configuration(state):
        config = from_canonical(TrialConfig, next(iter(trials.values())).config)
        if config.is_dense:
            dense.setdefault(_without_seed(config, spec.seed), {}).update(trials)
            continue
        for one in gathered:
            one.add(config, trials)
    results = []
    for one in gathered:
        finished = one.finished(objective)
        baselines = dense.get(_without_seed(dense_baseline(one.corner), spec.seed), {})
        results.append(
            GroupResults(
                group=one.group,
                objective=objective,
                sign=1 if direction == "max" else -1,
                configurations=tuple(finished),
                dense=_with_metric(baselines, objective),
                unfinished=len(one.trials) - len(finished),
            )
        )
    return results


def _by_configuration(state: SweepState) -> list[dict[int, TrialStatus]]:
    """Seed -> trial, of trials that differ in nothing else; thousands of them are compared by their text, which is fast."""
    found: dict[str, dict[int, TrialStatus]] = {}
    for trial in state.trials.values():
        found.setdefault(repr(trial.config | {"seed": None}), {})[trial.config["seed"]] = trial
    return list(found.values())


@dataclass
class _Gathered:
    """The trials of a group, by the values of their configuration.

    Attributes:
        corner: the trial with the first value of each axis.
    """

    group: Group
    corner: TrialConfig
    trials: dict[tuple[Any, ...], dict[int, TrialStatus]] = field(default_factory=dict)
    configs: dict[tuple[Any, ...], TrialConfig] = field(default_factory=dict)

    def add(self, config: TrialConfig, trials: Mapping[int, TrialStatus]) -> None:
        """Adds the trials of a configuration if it is of this group; one whose method has no use for a key may be of several.

        Args:
            config: of any of the seeds.
        """
        if (config.method, config.sparsity) != (self.corner.method, self.corner.sparsity):
            return
        named = {axis.key: value_at(config, axis.key) for axis in self.group.space.axes}
        if self.group.trial(named, config.seed) != config:
            return
        values = tuple(named.values())
        self.configs.setdefault(values, config)
        self.trials.setdefault(values, {}).update(trials)

    def finished(self, objective: str) -> list[ConfigurationResults]:
        keys, used = [axis.key for axis in self.group.space.axes], self._used_axes()
        results = []
        for values, trials in self.trials.items():
            ended = _with_metric(trials, objective)
            if ended:
                named = {key: value for key, value in zip(keys, values, strict=True) if key in used}
                results.append(ConfigurationResults(values=named, config=self.configs[values], trials=ended))
        return results

    def _used_axes(self) -> set[str]:
        """The axes that make a difference to the trials, or have one value."""
        seed, first = self.corner.seed, self.group.space.first()
        return {
            axis.key
            for axis in self.group.space.axes
            if axis.first == axis.last or self.group.trial({**first, axis.key: axis.last}, seed) != self.corner
        }


def _with_metric(trials: Mapping[int, TrialStatus], name: str) -> dict[int, TrialStatus]:
    return {seed: trial for seed, trial in trials.items() if trial.state == "finished" and name in trial.metrics}


def _without_seed(config: TrialConfig, seed: int) -> TrialConfig:
    return configured(config, {"seed": seed})
