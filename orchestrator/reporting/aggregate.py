"""State of a sweep -> results: mean and spread over seeds for every setting, the best setting of each sparsity.

A setting is a configuration without its seed. The best is chosen by mean validation accuracy; test accuracy is shown beside
it and decides nothing.
"""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.state.sweep_state import SweepState, TrialStatus
from trainables.config.keys import canonical, flatten, from_canonical
from trainables.config.methods import is_dense, is_option, option_block
from trainables.config.trial import TrialConfig

SPELLED_OUT = ("method", "sparsity", "warmup_epochs", "prune_iterations", "seed")


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
        varied: what else varies in the sweep, by dotted key; empty in a plain sweep.
        missing: seeds of this setting that have not finished.
    """

    config: TrialConfig
    varied: dict[str, Any]
    validation: MeanStd | None
    test: MeanStd | None
    search_seconds: float
    emptied_layers: int
    missing: int
    keys: tuple[str, ...]
    best: bool = False

    @property
    def is_dense(self) -> bool:
        return self.config.is_dense

    @property
    def others(self) -> str:
        """What else varies in the sweep, as `key=value`."""
        return _told(self.varied)

    @property
    def own_options(self) -> str:
        """The part of `others` that is options of the setting's own method."""
        return _told({key: value for key, value in self.varied.items() if is_option(key)})

    @property
    def shared_options(self) -> str:
        """The part of `others` that means the same for every method."""
        return _told({key: value for key, value in self.varied.items() if not is_option(key)})


def settings_of(state: SweepState) -> list[ConfigSummary]:
    """The settings with at least one finished trial: dense first, then by other axes, sparsity, warm-up, iterations."""
    varying = _varying_keys(state)
    groups: dict[str, list[TrialStatus]] = {}
    for trial in state.trials.values():
        setting = {key: value for key, value in flatten(trial.config).items() if key != "seed"}
        groups.setdefault(repr(sorted(setting.items(), key=lambda item: item[0])), []).append(trial)
    made = [_setting(trials, varying) for trials in groups.values()]
    made = [setting for setting in made if setting.test is not None]
    made.sort(key=lambda one: (not one.is_dense, one.others, one.config.method, *_place(one)))
    best = {id(best_of(members)) for _, members in panels(made)}
    return [replace(setting, best=True) if id(setting) in best else setting for setting in made]


def baseline_of(setting: ConfigSummary, settings: list[ConfigSummary]) -> ConfigSummary | None:
    """The dense setting that differs from this one in nothing but pruning, if there is one."""
    wanted = {key: value for key, value in setting.varied.items() if not _about_pruning(key)}
    return next((one for one in settings if one.is_dense and one.varied == wanted), None)


def panels(settings: list[ConfigSummary]) -> list[tuple[str, list[ConfigSummary]]]:
    """Title and settings of every heat map: one per sparsity and combination of other axes."""
    found: dict[str, list[ConfigSummary]] = {}
    named = several_methods(settings)
    for setting in settings:
        if not setting.is_dense:
            method = f"{setting.config.method}, " if named else ""
            title = f"{method}sparsity {setting.config.sparsity!r}" + (f", {setting.others}" if setting.others else "")
            found.setdefault(title, []).append(setting)
    return list(found.items())


def several_methods(settings: list[ConfigSummary]) -> bool:
    """Whether there is more than one way of pruning, so that tables must name it."""
    return len({one.config.method for one in settings if not one.is_dense}) > 1


def _varying_keys(state: SweepState) -> list[str]:
    """Dotted keys that differ among the pruned trials, apart from those with a column of their own."""
    configs = [flatten(trial.config) for trial in state.trials.values() if not is_dense(trial.config["method"])]
    keys = dict.fromkeys(key for config in configs for key in config if key not in SPELLED_OUT)
    return [key for key in keys if len({repr(config.get(key)) for config in configs if _may_have(config, key)}) > 1]


def _may_have(config: dict[str, Any], key: str) -> bool:
    """Whether a key means something in a configuration: options of another method do not."""
    return not is_option(key) or key.partition(".")[0] == option_block(config["method"])


def _about_pruning(key: str) -> bool:
    """Whether a key has no meaning for a dense baseline."""
    return key == "rewind" or key.startswith(("warmup.", "prunable.", "sanity.")) or is_option(key)


def _told(varied: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in varied.items())


def _setting(trials: list[TrialStatus], varying: list[str]) -> ConfigSummary:
    finished = [trial for trial in trials if trial.state == "finished"]
    values = flatten(trials[0].config)
    dense = is_dense(trials[0].config["method"])
    emptied = [trial.metrics.get("prune/emptied_layers", 0.0) for trial in finished]
    search = [trial.metrics.get("cost/search_seconds", 0.0) for trial in finished]
    return ConfigSummary(
        config=from_canonical(TrialConfig, trials[0].config),
        varied={key: values[key] for key in varying if key in values and not (dense and _about_pruning(key))},
        validation=_spread(finished, "val/accuracy"),
        test=_spread(finished, "test/accuracy"),
        search_seconds=statistics.fmean(search) if search else 0.0,
        emptied_layers=int(max(emptied, default=0)),
        missing=len(trials) - len(finished),
        keys=tuple(trial.key for trial in finished),
    )


def _spread(trials: list[TrialStatus], key: str) -> MeanStd | None:
    values = [trial.metrics[key] for trial in trials if key in trial.metrics]
    if not values:
        return None
    return MeanStd(mean=statistics.fmean(values), std=statistics.stdev(values) if len(values) > 1 else None, n=len(values))


def _place(setting: ConfigSummary) -> tuple[float, int, int]:
    return setting.config.sparsity, setting.config.warmup_epochs, setting.config.prune_iterations


def best_of(panel: list[ConfigSummary]) -> ConfigSummary | None:
    """The setting with the highest mean validation accuracy; of equals the cheapest search wins."""
    ranked = [(one.validation.mean, -one.search_seconds, index) for index, one in enumerate(panel) if one.validation]
    return panel[max(ranked)[2]] if ranked else None


def fingerprint_counts(results: list[dict[str, Any]]) -> Counter[str]:
    """How many trials ran under which fingerprint; more than one kind means that bits may differ."""
    counts: Counter[str] = Counter()
    for result in results:
        kinds = {
            f"{one['processor']}, torch {one['torch']}, {one['precision']}, {one['threads']} threads"
            for one in result["fingerprints"]
        }
        counts[" then ".join(sorted(kinds))] += 1
    return counts


def config_name(config: TrialConfig) -> str:
    return f"{config.model} on {canonical(config.dataset)['name']}"
