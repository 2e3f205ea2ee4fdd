"""The trials of a search as its decisions tell them, their names, and what MLflow shows of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from orchestrator.planning.entries import EarlyStop
from orchestrator.planning.plan import Plan
from orchestrator.search.decisions import Decision, Kind
from orchestrator.search.group_search import STOPS
from orchestrator.search.groups import all_groups, groups_of, seeds_of
from orchestrator.search.settings import is_settled
from orchestrator.spec.grid import dense_baseline, representative_trials
from orchestrator.spec.ranges import Range
from orchestrator.spec.schema import SweepSpec
from orchestrator.spec.trial_names import trial_names
from trainables.config.lookup import is_dense
from trainables.config.trial import TrialConfig


def decided_trials(spec: SweepSpec, decisions: Sequence[Decision]) -> list[TrialConfig]:
    """The dense baselines of a search, and the trials that it has begun, in that order."""
    groups = {group.name: group for group in groups_of(spec)}
    trials = dict.fromkeys(baselines(spec))
    values: dict[tuple[str, int | None], dict[str, Any]] = {}
    for decision in decisions:
        if decision.kind is Kind.CONFIGURATION:
            values[decision.group, decision.configuration] = decision.values
        elif decision.kind is Kind.TRIAL and decision.seed is not None:
            group = groups[decision.group]
            trials[group.trial(values[decision.group, decision.configuration], decision.seed)] = None
    return list(trials)


def baselines(spec: SweepSpec) -> list[TrialConfig]:
    """The dense trials of a search: for each first seed, and each value of the keys that make up its groups.

    A key of the configurations, such as a learning rate, has the value that the sweep file gives outside `search`.
    """
    methods = [one for one in spec.method if is_dense(spec.baseline) or (isinstance(one, str) and is_dense(one))]
    seeds, _ = seeds_of(spec)
    configs = (group.trial({}, seed) for group in all_groups(spec, methods) for seed in seeds)
    return list(dict.fromkeys(dense_baseline(config) for config in configs))


def with_course(plan: Plan, decisions: Sequence[Decision]) -> Plan:
    """The plan with the trials that were stopped early, unless they are finished since, and whether the search has ended."""
    finished = {trial.key for trial in plan.trials if trial.result is not None}
    groups: dict[str, set[str]] = {}  # of each trial, those in which it goes on
    stopped: dict[str, EarlyStop] = {}
    for decision in decisions:
        if decision.kind is Kind.TRIAL:
            groups.setdefault(decision.key, set()).add(decision.group)
        elif decision.kind is Kind.RUNG and decision.state == STOPS:
            groups[decision.key].discard(decision.group)
            stopped[decision.key] = EarlyStop(epoch=decision.epoch or 0, reason=decision.reason)
    stopped = {key: stop for key, stop in stopped.items() if not groups[key] and key not in finished}
    return replace(plan, settled=is_settled(plan.spec, decisions), stopped=stopped, tags=_tags(decisions, stopped))


def _tags(decisions: Sequence[Decision], stopped: Mapping[str, EarlyStop]) -> dict[str, dict[str, str]]:
    """Why each trial began, and why and where it was stopped."""
    tags: dict[str, dict[str, str]] = {}
    for decision in decisions:
        if decision.kind is Kind.TRIAL:
            tags.setdefault(decision.key, {}).update(reason_tags(decision.reason))
    for key, stop in stopped.items():
        tags[key] |= stop_tags(stop.reason, stop.epoch)
    return tags


def reason_tags(reason: str) -> dict[str, str]:
    """Tags of the MLflow run of a trial that has begun."""
    return {"drive.reason": reason}


def stop_tags(reason: str, epoch: int) -> dict[str, str]:
    """Tags of the MLflow run of a trial that was stopped after so many sparse epochs."""
    return {"drive.stopped": reason, "drive.rung": str(epoch)}


@dataclass(frozen=True)
class TrialNames:
    """Names of the trials of a search, which do not change when others join it."""

    spec: SweepSpec

    def of(self, config: TrialConfig) -> str:
        return trial_names([config], self._outline)[0]

    @cached_property
    def _outline(self) -> list[TrialConfig]:
        return representative_trials(self.spec)

    @property
    def warmup_lengths(self) -> tuple[int, ...]:
        """All lengths of warm-ups in the space, if it has several."""
        axis = self.spec.search.get("warmup_epochs", ())
        return tuple(axis.values() or ()) if isinstance(axis, Range) else axis

    def with_automatic_warmup(self, seed: int) -> list[TrialConfig]:
        """Trials of the space whose warm-up chooses its length, with this seed."""
        return [replace(config, seed=seed) for config in self._outline if config.warmup.auto]
