"""What a trial chose itself: the length of an automatic warm-up, and the number of automatic iterations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from trainables.config.metric_names import CHOSEN_ITERATIONS, CHOSEN_WARMUP
from trainables.config.trial import IterationsConfig, TrialConfig, WarmupConfig

WARMUP, ITERATIONS = "warmup_epochs", "prune_iterations"


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """A number that a trial chose for a key of its configuration, and why."""

    value: int
    reason: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def as_chosen(config: TrialConfig, metrics: Mapping[str, float]) -> TrialConfig:
    """The configuration with what the trial chose itself, by its metrics; unchanged as far as it has chosen nothing."""
    names = {WARMUP: CHOSEN_WARMUP, ITERATIONS: CHOSEN_ITERATIONS}
    return with_choices(
        config, {key: Choice(value=int(metrics[name]), reason="") for key, name in names.items() if name in metrics}
    )


def with_choices(config: TrialConfig, choices: Mapping[str, Choice]) -> TrialConfig:
    """The configuration of the trial that gives the same numbers with what this one chose written in its file."""
    if WARMUP in choices:
        config = replace(config, warmup_epochs=choices[WARMUP].value, warmup=WarmupConfig(lr=config.warmup.lr))
    if ITERATIONS in choices:
        config = replace(config, prune_iterations=choices[ITERATIONS].value, iterations=IterationsConfig())
    return config
