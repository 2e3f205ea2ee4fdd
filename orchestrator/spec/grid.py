"""Expands a SweepSpec into the configurations of its trials, and names them.

An axis is one searched key with its values. Dense baselines ignore pruning options, so there is one for each combination of
the remaining axes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from orchestrator.spec.field_types import DEFAULT, CustomMethod
from orchestrator.spec.ranges import Range
from orchestrator.spec.schema import SweepSpec
from trainables.config.keys import from_canonical
from trainables.config.lookup import is_dense, is_option, method_of, option_block
from trainables.config.method import Course
from trainables.config.methods import DENSE
from trainables.config.trial import TrialConfig
from trainables.custom.references import is_custom

AUTO_SECTIONS = {"warmup_epochs": "warmup", "prune_iterations": "iterations"}  # key that may be auto -> how it is chosen


def expand(spec: SweepSpec) -> list[TrialConfig]:
    """The trials of a sweep: methods, then axes in the file's order with the seed fastest; dense baselines last.

    Each configuration occurs once, even if several combinations lead to it.
    """
    trials: dict[TrialConfig, None] = {}
    for method in spec.method:
        base = base_config(spec, method)
        for combination in _combinations(spec.search):
            trials[configured(base, combination)] = None
    if is_dense(spec.baseline):
        trials |= {dense_baseline(config): None for config in trials}
    return list(trials)


def configured(base: TrialConfig, values: Mapping[str, Any]) -> TrialConfig:
    """A trial of a sweep: `base_config` with other values for some dotted keys."""
    config = base
    for key, value in values.items():
        config = _with(config, key, value)
    return dense_baseline(config) if config.is_dense else without_unused_options(config)


def representative_trials(spec: SweepSpec) -> list[TrialConfig]:
    """The trials of a sweep whose ranges are only their bounds, with the first seeds; those of `expand` without a search."""
    search = {key: (axis.min, axis.max) if isinstance(axis, Range) else axis for key, axis in spec.search.items()}
    if spec.seeds is not None:
        search = {"seed": tuple(range(spec.seed, spec.seed + spec.seeds.first))} | search
    return expand(spec.model_copy(update={"search": search}))


def base_config(spec: SweepSpec, method: str | CustomMethod) -> TrialConfig:
    """The configuration of one method's trials, before an axis changes it."""
    name = method.reference if isinstance(method, CustomMethod) else method
    values = spec.model_dump(include=set(TrialConfig.__dataclass_fields__) - {"method", "options"})
    for key in ("root", "download"):
        del values["dataset"][key]
    for key, section in AUTO_SECTIONS.items():
        most = values[section].pop("most")
        if values[key] == "auto":
            values[key], values[section]["auto"] = most, True
    values |= {"method": name, "initial_weights": spec.initial_weights is not None}  # a path is not part of the trial key
    values["norm_parts"] = 1 if spec.resources.sync_batch_norm else spec.resources.workers
    if isinstance(method, CustomMethod):
        return from_canonical(TrialConfig, values | {option_block(name): method.options.to_mapping()})
    if method_of(name).options.rules():
        values[name] = getattr(spec, name).model_dump()
    return from_canonical(TrialConfig, values)


def without_unused_options(config: TrialConfig) -> TrialConfig:
    """The trial with every option that its method does not use at its default, so that equal trials run only once."""
    method = config.pruning
    unused: dict[str, Any] = {}
    if method.scores_channels:
        unused["granularity"] = "channel"
    elif not method.prunes_channels:
        unused["granularity"] = "weight"
    of_weights = unused.get("granularity", config.granularity) == "weight"
    if not (method.course.ends_before_training and method.is_ranking and of_weights):
        unused["layer_sparsity"] = DEFAULT.layer_sparsity
    by_time = of_weights and unused.get("layer_sparsity", config.layer_sparsity) == "spdy"
    target = config.target
    if of_weights:
        target = unused["target"] = replace(DEFAULT.target, latency=target.latency if by_time else None)
        unused["compensate"] = DEFAULT.compensate
    if not (by_time and config.spdy.search):
        unused["spdy"] = replace(DEFAULT.spdy, search=config.spdy.search or not by_time)
    if not method.course.uses_iterations:
        unused["prune_iterations"], unused["iterations"] = DEFAULT.prune_iterations, DEFAULT.iterations
    if method.course.is_during_training or method.course is Course.LEVELS:  # LEVELS has its own rewinding
        unused["rewind"] = DEFAULT.rewind
    if method.compensates or method.course not in (Course.ROUNDS, Course.ONE_ROUND):
        unused["compensate"] = DEFAULT.compensate
    if not method.course.ends_before_training:
        unused["sanity"] = DEFAULT.sanity
    elif not method.is_ranking:  # the lowest of random scores are random too
        unused["sanity"] = replace(config.sanity, invert=DEFAULT.sanity.invert)
    if (sparsity := config.options.fixed_sparsity()) is not None or (sparsity := target.sparsity) is not None:
        unused["sparsity"] = sparsity
    unused["training"] = replace(config.training, spiking=config.training.spiking.in_use)
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
            layer_sparsity=DEFAULT.layer_sparsity,
            spdy=DEFAULT.spdy,
            granularity=DEFAULT.granularity,
            compensate=DEFAULT.compensate,
            target=DEFAULT.target,
        )
    )


def _with(config: TrialConfig, key: str, value: Any) -> TrialConfig:
    section, _, name = key.rpartition(".")
    if key in AUTO_SECTIONS:  # a value of an axis is a number
        section = AUTO_SECTIONS[key]
        return replace(config, **{key: value, section: replace(getattr(config, section), auto=False)})
    if is_option(key):
        return replace(config, options=replace(config.options, **{name: value})) if section == config.method else config
    changed: TrialConfig = _with_nested(config, key, value)
    return changed


def _with_nested(config: Any, key: str, value: Any) -> Any:
    """A config with another value at a dotted key, of one section or of sections within sections."""
    section, _, rest = key.partition(".")
    return replace(config, **{section: _with_nested(getattr(config, section), rest, value) if rest else value})


def _combinations(search: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    ordered = sorted(search, key=lambda key: key == "seed")  # stable: the file's order, the seed last
    for values in itertools.product(*(search[key] for key in ordered)):
        yield dict(zip(ordered, values, strict=True))
