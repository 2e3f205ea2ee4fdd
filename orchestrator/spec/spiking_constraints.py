"""Rules on spiking networks: which networks and methods have a spiking form, and which keys need one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.spec.conflict import Conflict
from orchestrator.spec.field_types import DEFAULT
from orchestrator.spec.schema import SweepSpec
from trainables.config.methods import METHODS
from trainables.config.trial import TrialConfig
from trainables.models.table import NETWORKS

RULE = "training.spiking.rule"
SAMPLED = "training.spiking.sampled_steps"


def spiking_conflicts(config: TrialConfig) -> Iterator[Conflict]:
    """The conflicts within one trial's configuration."""
    spiking = config.training.spiking
    if not spiking.is_on:
        return
    able = [name for name, network in NETWORKS.items() if network.has_spikes]
    if config.model not in able:
        yield Conflict((RULE, "model"), "be none for this model", f"remove it, or take one of {', '.join(able)}")
    if problem := config.pruning.spiking_problem:
        others = ", ".join(name for name, method in METHODS.items() if not method.spiking_problem)
        yield Conflict((RULE, "method"), f"be none for {config.method}: {problem}", f"take one of {others}")
    if config.uses_timings:
        rule = "be none with target.latency: timing tables are of networks that do not spike"
        yield Conflict((RULE, "target.latency"), rule, "write another target, or remove it")
    if spiking.samples_steps and spiking.sampled_steps > spiking.steps:
        yield Conflict((SAMPLED, "training.spiking.steps"), "be <= training.spiking.steps", "draw fewer, or take more steps")


def spiking_sweep_conflicts(spec: SweepSpec, trials: Sequence[TrialConfig]) -> Iterator[Conflict]:
    """The conflicts of keys that no trial of the sweep uses, or that its trials cannot use.

    Args:
        trials: of the sweep.
    """
    rules = {trial.training.spiking.rule for trial in trials}
    section = spec.training.spiking
    for name in type(section).model_fields:
        key = f"training.spiking.{name}"
        is_given = key in spec.search or getattr(section, name) != getattr(DEFAULT.training.spiking, name)
        if not is_given or key == RULE:
            continue
        if rules == {"none"}:
            yield Conflict((key, RULE), "be given only with a rule for spiking networks", f"write {RULE}: sltt, or remove it")
        elif key == SAMPLED and "sltt-k" not in rules:
            yield Conflict((key, RULE), "be given only with rule sltt-k", f"write {RULE}: sltt-k, or remove it")
    if spec.resources.compile and rules != {"none"}:
        rule = "be none with resources.compile: compiled steps do not keep the voltages of neurons from step to step"
        yield Conflict((RULE, "resources.compile"), rule, "write resources: {compile: false}")
