"""What is left of a plan will cost: hours of one slot and bytes of models, estimated from finished trials."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.planning.entries import PlannedTrial
from orchestrator.planning.plan import Plan
from orchestrator.state.trial_results import read_results
from orchestrator.storage.base import Storage
from trainables.config.automatic import as_chosen
from trainables.config.keys import canonical, from_canonical
from trainables.config.trial import TrialConfig

MAX_RESULTS = 20  # of each network and data set


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """All are None where no trial of the sweep's networks and data is finished."""

    hours: float | None
    model_bytes: int | None
    seconds_per_epoch: float | None = None


@dataclass(kw_only=True)
class _Group:
    """The plan's trials of one network and data set, and what finished trials of the same cost."""

    trials: list[PlannedTrial] = field(default_factory=list)
    seconds_per_epoch: list[float] = field(default_factory=list)
    model_bytes: list[int] = field(default_factory=list)

    def add(self, result: Mapping[str, Any]) -> None:
        epochs = as_chosen(from_canonical(TrialConfig, result["config"]), result["metrics"]).trained_epochs
        self.seconds_per_epoch.append(result["metrics"]["cost/total_seconds"] / epochs)
        self.model_bytes.append(result["model_bytes"])


def estimate(plan: Plan, storage: Storage) -> Estimate:
    """The cost of the unfinished trials, each judged by finished trials of its network and data set.

    Where there is none of them yet, it is judged by those of the plan's other networks.
    """
    groups: dict[str, _Group] = {}
    for trial in plan.trials:
        groups.setdefault(_group_key(canonical(trial.config)), _Group()).trials.append(trial)
    _add_results(groups, storage)
    measured = [group for group in groups.values() if group.seconds_per_epoch]
    if not measured:
        return Estimate(hours=None, model_bytes=None)
    mean_seconds = statistics.fmean(statistics.fmean(group.seconds_per_epoch) for group in measured)
    mean_bytes = statistics.fmean(statistics.fmean(group.model_bytes) for group in measured)
    seconds = total_bytes = 0.0
    for group in groups.values():
        left = replace(plan, trials=tuple(group.trials))
        seconds += left.epochs()["shared"] * (statistics.fmean(group.seconds_per_epoch or [mean_seconds]))
        total_bytes += len(left.unfinished) * statistics.fmean(group.model_bytes or [mean_bytes])
    return Estimate(hours=seconds / 3600, model_bytes=round(total_bytes), seconds_per_epoch=mean_seconds)


def _add_results(groups: Mapping[str, _Group], storage: Storage) -> None:
    """Reads results of the storage until each group has enough."""
    keys = storage.names("trials")
    while keys and any(len(group.model_bytes) < MAX_RESULTS for group in groups.values()):
        batch, keys = keys[:MAX_RESULTS], keys[MAX_RESULTS:]
        for result in read_results(storage, batch)[0].values():
            group = groups.get(_group_key(result["config"]))
            if group is not None:
                group.add(result)


def _group_key(config: Mapping[str, Any]) -> str:
    return json.dumps([config["model"], config["dataset"]], sort_keys=True)
