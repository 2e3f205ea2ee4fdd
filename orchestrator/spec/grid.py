"""Expands a SweepSpec into the configurations of its trials, and names them.

An axis is one searched key with its values. Dense baselines ignore pruning options, so there is one for each combination of
the remaining axes.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any

from orchestrator.spec.axes import TRIAL_KEYS
from orchestrator.spec.field_types import DEFAULT, CustomMethod
from orchestrator.spec.ranges import Range
from orchestrator.spec.schema import SweepSpec
from trainables.config.keys import from_canonical
from trainables.config.lookup import is_dense, is_option, method_of, option_block
from trainables.config.method import Course
from trainables.config.methods import DENSE, METHODS
from trainables.config.options import CustomOptions
from trainables.config.trial import AXES, TrialConfig
from trainables.custom.references import PREFIX, is_custom


def expand(spec: SweepSpec) -> list[TrialConfig]:
    """The trials of a sweep: methods, then axes in the file's order with the seed fastest; dense baselines last.

    Each configuration occurs once, even if several combinations lead to it.
    """
    trials: dict[TrialConfig, None] = {}
    for method in spec.method:
        base = _base(spec, method)
        for combination in _combinations(spec.search):
            config = base
            for key, value in combination.items():
                config = _with(config, key, value)
            trials[dense_baseline(config) if config.is_dense else without_unused_options(config)] = None
    if is_dense(spec.baseline):
        trials |= {dense_baseline(config): None for config in trials}
    return list(trials)


def representative_trials(spec: SweepSpec) -> list[TrialConfig]:
    """The trials of a sweep whose ranges are only their bounds, with the first seeds; those of `expand` without a search."""
    search = {key: (axis.min, axis.max) if isinstance(axis, Range) else axis for key, axis in spec.search.items()}
    if spec.seeds is not None:
        search = {"seed": tuple(range(spec.seed, spec.seed + spec.seeds.first))} | search
    return expand(spec.model_copy(update={"search": search}))


def _base(spec: SweepSpec, method: str | CustomMethod) -> TrialConfig:
    """The configuration of one method's trials, before an axis changes it."""
    name = method.reference if isinstance(method, CustomMethod) else method
    values = spec.model_dump(include=set(TrialConfig.__dataclass_fields__) - {"method", "options"})
    for key in ("root", "download"):
        del values["dataset"][key]
    values |= {"method": name, "initial_weights": spec.initial_weights is not None}  # a path is not part of the trial key
    if isinstance(method, CustomMethod):
        return from_canonical(TrialConfig, values | {option_block(name): method.options.to_mapping()})
    if method_of(name).options.rules():
        values[name] = getattr(spec, name).model_dump()
    return from_canonical(TrialConfig, values)


def without_unused_options(config: TrialConfig) -> TrialConfig:
    """The trial with every option that its method does not use at its default, so that equal trials run only once."""
    method = config.pruning
    unused: dict[str, Any] = {}
    if not method.course.uses_iterations:
        unused["prune_iterations"] = DEFAULT.prune_iterations
    if method.course.is_during_training or method.course is Course.LEVELS:  # LEVELS has its own rewinding
        unused["rewind"] = DEFAULT.rewind
    if not method.course.ends_before_training:
        unused["sanity"] = DEFAULT.sanity
    elif not method.is_ranking:  # the lowest of random scores are random too
        unused["sanity"] = replace(config.sanity, invert=DEFAULT.sanity.invert)
    if (sparsity := config.options.fixed_sparsity()) is not None:
        unused["sparsity"] = sparsity
    reinitialized = unused.get("sanity", config.sanity).reinitialize
    if reinitialized:
        unused["rewind"] = DEFAULT.rewind
    if is_custom(config.model) or (config.initial_weights and not reinitialized):  # which come with their weights
        unused["initialization"] = DEFAULT.initialization
    return replace(config, **unused)


def dense_baseline(config: TrialConfig) -> TrialConfig:
    """The baseline of a trial: the same training without pruning, with every pruning option at its default."""
    return without_unused_options(
        replace(
            config,
            method=DENSE,
            warmup_epochs=DEFAULT.warmup_epochs,
            sparsity=DEFAULT.sparsity,
            rewind=DEFAULT.rewind,
            warmup=DEFAULT.warmup,
            prunable=DEFAULT.prunable,
        )
    )


def _with(config: TrialConfig, key: str, value: Any) -> TrialConfig:
    section, _, name = key.rpartition(".")
    if not section:
        return replace(config, **{name: value})
    if is_option(key):
        return replace(config, options=replace(config.options, **{name: value})) if section == config.method else config
    return replace(config, **{section: replace(getattr(config, section), **{name: value})})


def _combinations(search: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    ordered = sorted(search, key=lambda key: key == "seed")  # stable: the file's order, the seed last
    for values in itertools.product(*(search[key] for key in ordered)):
        yield dict(zip(ordered, values, strict=True))


def trial_names(configs: Sequence[TrialConfig]) -> list[str]:
    """A readable name for each trial, such as w04-i050-s0.95-r0 or dense-r0, unique within `configs`.

    w is warmup_epochs, i prune_iterations, s sparsity, r seed. The method comes first if there are several; other keys that
    vary follow as -lr0.1.
    """
    pruned = [config for config in configs if not config.is_dense]
    width_w = max((len(str(config.warmup_epochs)) for config in pruned), default=0)
    width_i = max((len(str(config.prune_iterations)) for config in pruned), default=0)
    several_methods = len({config.method for config in pruned}) > 1
    all_values = [dotted_values(config) for config in configs]
    varying = {
        dense: _varying([values for config, values in zip(configs, all_values, strict=True) if config.is_dense is dense])
        for dense in (True, False)
    }
    names = []
    for config, values in zip(configs, all_values, strict=True):
        name = DENSE
        if not config.is_dense:
            name = f"{_short(config.method)}-" if several_methods else ""
            name += f"w{config.warmup_epochs:0{max(2, width_w)}}"
            if config.pruning.course.uses_iterations:
                name += f"-i{config.prune_iterations:0{max(3, width_i)}}"
            name += f"-s{config.sparsity!r}"
        varied = varying[config.is_dense]
        others = [f"-{label}{_short(values[key])}" for key, label in varied.items() if _is_used(key, config, values)]
        names.append(f"{name}-r{config.seed}{''.join(others)}")
    assert len(set(names)) == len(set(configs)), "two trials with one name"
    return names


def dotted_values(config: TrialConfig) -> dict[str, Any]:
    """Dotted key -> value, for every key of a configuration."""
    values = {key: _value(config, key) for key in TRIAL_KEYS}
    if isinstance(config.options, CustomOptions):
        values |= {f"{config.option_block}.{name}": value for name, value in config.options.values}
    return values


def _value(config: TrialConfig, key: str) -> Any:
    """The value of a key; the default if it is another method's option."""
    if not is_option(key):
        return attrgetter(key)(config)
    block, _, name = key.partition(".")
    return getattr(config.options, name) if block == config.method else METHODS[block].options.default(name)


def _varying(values: list[dict[str, Any]]) -> dict[str, str]:
    """Keys other than the named axes that differ between trials -> their label in names: the last part if it is unambiguous."""
    keys = dict.fromkeys((*TRIAL_KEYS, *itertools.chain(*values)))
    varying = [key for key in keys if key not in (*AXES, "method") and len({value.get(key) for value in values}) > 1]
    last_parts = [key.rpartition(".")[2] for key in varying]
    return {key: last if last_parts.count(last) == 1 else key for key, last in zip(varying, last_parts, strict=True)}


def _is_used(key: str, config: TrialConfig, values: dict[str, Any]) -> bool:
    """Whether the key is not an option of a method, or is one of the trial's method."""
    return not is_option(key) or (key in values and key.partition(".")[0] == config.option_block)


def _short(value: Any) -> str:
    if isinstance(value, str):
        return value.replace(" ", "").removeprefix(PREFIX)
    return "none" if value is None else json.dumps(value, separators=(",", ":"))
