"""Rules on what is removed together, and how much of it: granularity, targets and compensation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.spec.conflict import Conflict
from orchestrator.spec.field_types import DEFAULT, CustomMethod
from orchestrator.spec.schema import SweepSpec
from trainables.config.method import Course
from trainables.config.methods import METHODS
from trainables.config.trial import TrialConfig

CHANNEL = "write granularity: channel"
LATENCY = "target.latency"


def channel_conflicts(config: TrialConfig) -> Iterator[Conflict]:
    """The conflicts within one trial's configuration."""
    targets = tuple(f"target.{name}" for name in config.target.given)
    if len(targets) > 1:
        yield Conflict(targets, "be the only target", "keep one of them")
    if config.layer_sparsity == "spdy":
        yield from _spdy_conflicts(config)
    if not config.prunes_channels:
        return
    if config.compensates:
        key, rule = ("compensate", "be false") if config.compensate else ("method", "not be cap")
        changes = [f"sanity.{name}" for name in ("shuffle", "reinitialize") if getattr(config.sanity, name)]
        for other in changes + (["rewind"] if config.rewind != DEFAULT.rewind else []):
            yield Conflict((key, other), f"{rule} with {other}, which undoes compensation", f"remove {other}")
        for conflict in config.options.compensation_conflicts():
            keys = (*(f"{config.option_block}.{name}" for name in conflict.names), "compensate")
            yield Conflict(keys, conflict.rule, conflict.hint)
    if config.uses_timings and config.options.implant_share():
        keys = (f"{config.option_block}.implant", LATENCY)
        yield Conflict(keys, f"be 0 with {LATENCY}: timing tables have no times of implants", "remove one of the two")
    for conflict in config.options.weight_conflicts():
        keys = (*(f"{config.option_block}.{name}" for name in conflict.names), "granularity")
        yield Conflict(keys, conflict.rule, conflict.hint)


def _spdy_conflicts(config: TrialConfig) -> Iterator[Conflict]:
    if config.target.latency is None:
        rule = f"be given with {LATENCY}, the share of the time that remains"
        yield Conflict(("layer_sparsity", LATENCY), rule, "write target: {latency: 0.5}")
    if config.pruning.course is Course.LEVELS:
        if config.spdy.search:
            rule = f"be false for {config.method}, which scores weights after training"
            yield Conflict(("spdy.search", "method"), rule, "write spdy: {search: false}")
        for conflict in config.options.weight_conflicts():
            keys = (*(f"{config.option_block}.{name}" for name in conflict.names), "layer_sparsity")
            yield Conflict(keys, conflict.rule.replace("granularity channel", "layer_sparsity spdy"), conflict.hint)


def granularity_conflicts(spec: SweepSpec, trials: Sequence[TrialConfig]) -> Iterator[Conflict]:
    """The conflicts of keys that no trial of the sweep uses, or that its trials cannot use.

    Args:
        trials: of the sweep; methods that know one granularity alone have that one.
    """
    if spec.granularity == "channel" and "granularity" not in spec.search:
        for method in spec.method:
            if not isinstance(method, CustomMethod) and not METHODS[method].prunes_channels and method != "dense":
                able = ", ".join(name for name, one in METHODS.items() if one.prunes_channels)
                yield Conflict(("granularity", "method"), f"be weight for {method}", f"take one of {able}")
    of_channels = any(trial.prunes_channels for trial in trials)
    of_weights = any(not trial.prunes_channels and not trial.is_dense for trial in trials)
    targets = [f"target.{name}" for name in type(spec.target).model_fields]
    given = [key for key in targets if key in spec.search or getattr(spec.target, key.rpartition(".")[2]) is not None]
    by_time = any(trial.layer_sparsity == "spdy" for trial in trials)
    if given and not of_channels and not (by_time and given == [LATENCY]):
        also, way = (", or layer_sparsity spdy", f"{CHANNEL} or layer_sparsity: spdy") if given == [LATENCY] else ("", CHANNEL)
        yield Conflict((given[0], "granularity"), f"be given only with granularity channel{also}", way)
    if (spec.compensate or "compensate" in spec.search) and not of_channels:
        yield Conflict(("compensate", "granularity"), "be given only with granularity channel", CHANNEL)
    if (spec.layer_sparsity != DEFAULT.layer_sparsity or "layer_sparsity" in spec.search) and of_channels and not of_weights:
        yield Conflict(("layer_sparsity", "granularity"), "be given only with granularity weight", "remove it")
    has_sparsity = spec.sparsity != DEFAULT.sparsity or "sparsity" in spec.search
    pruned = [trial for trial in trials if not trial.is_dense and trial.options.fixed_sparsity() is None]
    without = {trial.method: None for trial in pruned if not trial.target.given}
    if by_time and without and not has_sparsity:
        rule = f"be that of all trials, or have sparsity beside it: {', '.join(without)} cannot have it"
        yield Conflict((LATENCY, "method", "layer_sparsity"), rule, "write a sparsity for the others, or remove them")
    if given and ((of_channels and not of_weights) or (by_time and not without)) and has_sparsity:
        yield Conflict(("sparsity", given[0]), f"not be given with {given[0]}, which decides it", "remove one of the two")
