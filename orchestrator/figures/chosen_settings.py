"""The recommended settings of a sweep with what figures say of them, as series over sparsity."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.reporting.aggregate import ConfigSummary
from orchestrator.reporting.sweep_results import SweepResults
from orchestrator.search.space import values_text
from trainables.config.lookup import is_dense, method_label


@dataclass(frozen=True, kw_only=True)
class ChosenSetting:
    """The recommended setting of one group.

    Attributes:
        series: what the groups of one line have in common: the method and other fixed keys, without the sparsity.
        group: the name of the group.
    """

    series: str
    group: str
    setting: ConfigSummary

    @property
    def label(self) -> str:
        """Warm-up and iterations, for people."""
        config = self.setting.config
        return f"warm-up {config.warmup_label}, iterations {config.iterations_label}"


def chosen_settings(results: SweepResults) -> list[ChosenSetting]:
    """Those of all groups with results, in the order of the sweep file."""
    best = {key: one for one in results.settings if one.best and not one.is_dense for key in one.keys}
    if not results.recommendations:
        return [
            ChosenSetting(
                series=_series(method_label(one.config.method), one.shared_options), group=_group_name(one), setting=one
            )
            for one in dict.fromkeys(best.values())
        ]
    chosen = []
    for one in results.recommendations:
        fixed = {key: value for key, value in one.results.group.fixed.items() if not _is_sparsity(key)}
        setting = next((best[key] for key in one.keys if key in best), None)
        if setting is not None:
            granularity = fixed.pop("granularity", None)
            method = _series(method_label(one.results.group.base.method), f"{granularity}s" if granularity else "")
            series = _series(method, values_text(fixed))
            chosen.append(ChosenSetting(series=series, group=one.name, setting=setting))
    return chosen


def dense_settings(results: SweepResults) -> list[ConfigSummary]:
    return [one for one in results.settings if one.is_dense]


def mean_of(records: Mapping[str, Mapping[str, Any]], keys: Iterable[str], name: str) -> float | None:
    """The mean of a field of result.json over trials; None where it is not known of one of them."""
    values = [records[key].get(name) if key in records else None for key in keys]
    known = [float(value) for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None


def mean_metric(records: Mapping[str, Mapping[str, Any]], keys: Iterable[str], name: str) -> float | None:
    """The same of a metric."""
    return mean_of({key: record["metrics"] for key, record in records.items()}, keys, name)


def methods_of(results: SweepResults) -> list[str]:
    """The methods with results in the order of the sweep, dense last, so that each has the same colour in all figures."""
    methods = dict.fromkeys(results.state.trials[key].config["method"] for key in results.records)
    return [method_label(name) for name in sorted(methods, key=is_dense)]


def _is_sparsity(key: str) -> bool:
    """Whether a key decides the place on the axis of sparsity."""
    return key == "sparsity" or key.startswith("target.")


def _series(method: str, others: str) -> str:
    return f"{method}, {others}" if others else method


def _group_name(one: ConfigSummary) -> str:
    return f"{one.config.method}-s{one.config.sparsity!r}" + (f"-{one.shared_options}" if one.shared_options else "")
