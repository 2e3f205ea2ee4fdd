"""Aggregates the trials of a sweep over seeds, and marks the best configuration of each sparsity.

That is the one with the highest mean validation accuracy, unless the report has a recommendation, which then takes its place.
Test accuracy is shown beside it and decides nothing.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.state.sweep_state import SweepState, TrialStatus
from trainables.config.automatic import as_chosen
from trainables.config.keys import canonical, flatten, from_canonical
from trainables.config.lookup import is_dense, is_option, method_label, option_block
from trainables.config.trial import AXES, TrialConfig
from trainables.wording import counted

SPEEDUP = "latency/speedup"
LATENCY_BY_TABLE = "prune/latency_by_table"


@dataclass(frozen=True, kw_only=True, slots=True)
class MeanStd:
    """Mean and sample standard deviation of n values; the deviation of one value is unknown, not zero."""

    mean: float
    std: float | None
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3f}" if self.std is None else f"{self.mean:.3f} ± {self.std:.3f}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfigSummary:
    """One line of the table: a configuration apart from its seed, over the seeds that have finished.

    Attributes:
        varying: what else varies in the sweep, by dotted key; empty in a plain sweep.
        missing: seeds of this configuration that have not finished.
        kept_weights, multiply_adds: mean shares of the dense network's that remain; None where they are not known.
        latency_by_table: mean share of the dense network's time that remains by the timing table; None without one.
        speedup: of the fastest way to run the pruned network against the dense one, where `latency` has measured it.
        chosen: the configurations of the finished seeds with the numbers that they chose themselves.
    """

    config: TrialConfig
    varying: dict[str, Any]
    validation: MeanStd | None
    test: MeanStd | None
    search_seconds: float
    emptied_layers: int
    missing: int
    keys: tuple[str, ...]
    kept_weights: float | None = None
    multiply_adds: float | None = None
    latency_by_table: float | None = None
    speedup: MeanStd | None = None
    chosen: tuple[TrialConfig, ...] = ()
    best: bool = False

    @property
    def is_dense(self) -> bool:
        return self.config.is_dense

    @property
    def chosen_warmups(self) -> list[int]:
        """Lengths of the warm-up, ascending; those of several seeds may differ if it is automatic."""
        return sorted({config.warmup_epochs for config in self.chosen or (self.config,)})

    @property
    def chosen_iterations(self) -> list[int]:
        """The same for the iterations."""
        return sorted({config.rounds for config in self.chosen or (self.config,)})

    @property
    def trained_epochs(self) -> float:
        """Epochs that a trial trains, warm-up included; the mean of the seeds where they differ."""
        return statistics.fmean(config.trained_epochs for config in self.chosen or (self.config,))

    @property
    def extra_axes(self) -> str:
        """What else varies in the sweep, as `key=value`; of channels also what the sparsity is a share of."""
        return _as_text(self.varying)

    @property
    def method_options(self) -> str:
        """The part of `extra_axes` that is options of its method."""
        return _as_text({key: value for key, value in self.varying.items() if is_option(key)})

    @property
    def shared_options(self) -> str:
        """The part of `extra_axes` that means the same for every method."""
        return _as_text({key: value for key, value in self.varying.items() if not is_option(key)})


def config_summaries(state: SweepState) -> list[ConfigSummary]:
    """The configurations with at least one finished trial: dense first, then by other axes, sparsity, warm-up, iterations."""
    groups = _by_configuration(state)
    varying = _varying_keys([flatten(trials[0].config) for trials in groups])
    summaries = [_summary(trials, varying) for trials in groups]
    summaries = [summary for summary in summaries if summary.test is not None]
    summaries.sort(key=lambda one: (not one.is_dense, one.extra_axes, one.config.method, *_position(one)))
    best = {id(best_of(members)) for _, members in heatmap_groups(summaries)}
    return [replace(summary, best=True) if id(summary) in best else summary for summary in summaries]


def baseline_of(summary: ConfigSummary, settings: list[ConfigSummary]) -> ConfigSummary | None:
    """The dense baseline that differs in nothing but pruning, if there is one."""
    shared = {key: value for key, value in summary.varying.items() if not _about_pruning(key)}
    return next((one for one in settings if one.is_dense and one.varying == shared), None)


def heatmap_groups(settings: list[ConfigSummary]) -> list[tuple[str, list[ConfigSummary]]]:
    """Title and configurations of every heat map: one per sparsity and combination of other axes."""
    grouped: dict[str, list[ConfigSummary]] = {}
    named = several_methods(settings)
    for summary in settings:
        if not summary.is_dense:
            method = f"{method_label(summary.config.method)}, " if named else ""
            title = f"{method}sparsity {summary.config.sparsity!r}" + (f", {summary.extra_axes}" if summary.extra_axes else "")
            grouped.setdefault(title, []).append(summary)
    return list(grouped.items())


def several_methods(settings: Sequence[ConfigSummary]) -> bool:
    """Whether there is more than one way of pruning, so that tables must name it."""
    return len({one.config.method for one in settings if not one.is_dense}) > 1


def _by_configuration(state: SweepState) -> list[list[TrialStatus]]:
    """The trials that differ in their seed alone; equal texts are looked up, since there may be thousands."""
    groups: dict[str, list[TrialStatus]] = {}
    known: dict[str, list[TrialStatus]] = {}  # text of a configuration -> its group
    for trial in state.trials.values():
        text = repr(trial.config | {"seed": None})
        if text not in known:
            flat = flatten(trial.config | {"seed": None})
            known[text] = groups.setdefault(repr(sorted(flat.items(), key=lambda item: item[0])), [])
        known[text].append(trial)
    return list(groups.values())


def _varying_keys(configs: list[dict[str, Any]]) -> list[str]:
    """Dotted keys that differ among the pruned configurations, apart from those with a column of their own."""
    pruned = [config for config in configs if not is_dense(config["method"])]
    keys = dict.fromkeys(key for config in pruned for key in config if key not in ("method", *AXES))
    return [key for key in keys if len({repr(config.get(key)) for config in pruned if _may_have(config, key)}) > 1]


def _may_have(config: dict[str, Any], key: str) -> bool:
    """Whether a key means something in a configuration: options of another method do not."""
    return not is_option(key) or key.partition(".")[0] == option_block(config["method"])


def _about_pruning(key: str) -> bool:
    """Whether a key has no meaning for a dense baseline."""
    sections = ("warmup.", "iterations.", "prunable.", "sanity.", "target.", "spdy.")
    return key in ("rewind", "layer_sparsity", "granularity", "compensate") or key.startswith(sections) or is_option(key)


def _as_text(varying: dict[str, Any]) -> str:
    return ", ".join(filter(None, (_setting_text(key, value) for key, value in varying.items())))


def _setting_text(key: str, value: Any) -> str:
    """One of the settings that vary, short where the sparsity beside it says the rest."""
    if key.startswith("target."):
        return "" if value is None else f"of {key.removeprefix('target.').replace('_', '-')}"
    return str(value) if key == "granularity" else f"{key}={value}"


def _summary(trials: list[TrialStatus], varying: list[str]) -> ConfigSummary:
    finished = [trial for trial in trials if trial.state == "finished"]
    values = flatten(trials[0].config)
    dense = is_dense(trials[0].config["method"])
    emptied = [trial.metrics.get("prune/emptied_layers", 0.0) for trial in finished]
    search = [trial.metrics.get("cost/search_seconds", 0.0) for trial in finished]
    config = from_canonical(TrialConfig, trials[0].config)
    return ConfigSummary(
        config=config,
        varying={key: values[key] for key in varying if key in values and not (dense and _about_pruning(key))},
        validation=_spread(finished, "val/accuracy"),
        test=_spread(finished, "test/accuracy"),
        search_seconds=statistics.fmean(search) if search else 0.0,
        emptied_layers=int(max(emptied, default=0)),
        missing=len(trials) - len(finished),
        keys=tuple(trial.key for trial in finished),
        kept_weights=_mean_of(finished, "model/sparsity", lambda sparsity: 1 - sparsity),
        multiply_adds=_mean_of(finished, "model/theoretical_speedup", lambda speedup: 1 / speedup),
        latency_by_table=_mean_of(finished, LATENCY_BY_TABLE, lambda share: share),
        speedup=_spread(finished, SPEEDUP),
        chosen=tuple(as_chosen(config, trial.metrics) for trial in finished),
    )


def _mean_of(trials: list[TrialStatus], key: str, share: Callable[[float], float]) -> float | None:
    """The mean of what follows from a metric; None unless each trial has it."""
    values = [trial.metrics[key] for trial in trials if key in trial.metrics]
    return statistics.fmean(map(share, values)) if values and len(values) == len(trials) else None


def _spread(trials: list[TrialStatus], key: str) -> MeanStd | None:
    values = [trial.metrics[key] for trial in trials if key in trial.metrics]
    if not values:
        return None
    return MeanStd(mean=statistics.fmean(values), std=statistics.stdev(values) if len(values) > 1 else None, n=len(values))


def _position(summary: ConfigSummary) -> tuple[float, int, int]:
    return summary.config.sparsity, summary.config.warmup_epochs, summary.config.prune_iterations


def best_of(panel: list[ConfigSummary]) -> ConfigSummary | None:
    """The one with the highest mean validation accuracy; of equals the cheapest search wins."""
    ranked = [(one.validation.mean, -one.search_seconds, index) for index, one in enumerate(panel) if one.validation]
    return panel[max(ranked)[2]] if ranked else None


def fingerprint_counts(results: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """How many trials ran under which fingerprint; with more than one, bits may differ."""
    counts: Counter[str] = Counter()
    for result in results:
        kinds = {_fingerprint_text(one) for one in result["fingerprints"]}
        counts[" then ".join(sorted(kinds))] += 1
    return counts


def _fingerprint_text(one: Mapping[str, Any]) -> str:
    text = f"{one['processor']}, torch {one['torch']}, {one['precision']}, {counted(one['threads'], 'thread')}"
    if one.get("workers", 1) == 1:
        return text
    layout = f" (by machine: {one['layout']})" if "layout" in one else ""
    norm = "" if one["sync_batch_norm"] else " that normalise apart"
    return f"{text} of each of {one['workers']} workers{layout}{norm}"


def numbers_of_workers(results: Iterable[Mapping[str, Any]]) -> list[int]:
    """How many workers the trials had, each number once, the smallest first."""
    return sorted({one.get("workers", 1) for result in results for one in result["fingerprints"]})


def workers_notes(numbers: Sequence[int]) -> list[str]:
    """What the numbers of workers mean for times; nothing where each trial had one."""
    if max(numbers, default=1) == 1:
        return []
    mixed = ", so those of different numbers cannot be compared" if len(numbers) > 1 else ""
    each = " or ".join(map(str, numbers))
    return [f"trials were trained by {each} workers each; seconds count once for all workers of a trial{mixed}"]


def config_name(config: TrialConfig) -> str:
    return f"{config.model} on {canonical(config.dataset)['name']}"
