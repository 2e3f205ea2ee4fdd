"""What a search knows of its configurations and trials; changed by decisions alone."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainables.config.trial import TrialConfig

RUNNING, FINISHED, STOPPED, FAILED = "running", "finished", "stopped", "failed"


@dataclass(kw_only=True)
class TrialRecord:
    """One configuration with one seed.

    Attributes:
        cost: epochs that it was expected to train when it began, its warm-up only as far as it was missing.
        values: objective -> value, at the end or at the rung where it was stopped.
        rungs: sparse epochs -> the objective there.
        stop_reason: why it should stop; empty while it goes on.
        can_stop: it is compared with others at rungs.
        epochs: that its results report; more than one, if it failed first.
    """

    key: str
    seed: int
    config: TrialConfig
    cost: int
    can_stop: bool
    state: str = RUNNING
    values: Mapping[str, float] = field(default_factory=dict)
    rungs: dict[int, float] = field(default_factory=dict)
    stop_reason: str = ""
    seconds: float = 0.0
    epochs: int = 0

    @property
    def warmup_cost(self) -> int:
        """Epochs of its cost that are those of its warm-up."""
        return max(0, self.cost - self.config.level_epochs - self.config.sparse_epochs)


@dataclass(kw_only=True)
class ConfigurationRecord:
    """One configuration of a group with its trials by seed.

    Attributes:
        attributes: what the sampler noted on it.
        ruled_out: why it gets no more seeds; empty while it may.
        left_after: number of seeds at the look of a race that ruled it out.
        left_to: number of the configuration that led there; None if its decision is older than this field.
        is_worse: a race has shown that it is worse than another one.
    """

    number: int
    values: Mapping[str, Any]
    reason: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    trials: dict[int, TrialRecord] = field(default_factory=dict)
    ruled_out: str = ""
    left_after: int | None = None
    left_to: int | None = None
    is_worse: bool = False

    def has_finished(self, seeds: Sequence[int]) -> bool:
        """Whether its trials of all these seeds are finished."""
        return all(seed in self.trials and self.trials[seed].state == FINISHED for seed in seeds)

    def finished_values(self, objective: str, seeds: Sequence[int] | None = None) -> list[float]:
        """The objective of its finished trials, in the order of the seeds."""
        chosen = self.trials if seeds is None else seeds
        trials = [self.trials[seed] for seed in chosen if seed in self.trials]
        return [trial.values[objective] for trial in trials if trial.state == FINISHED]

    def values_by_seed(self, objective: str) -> dict[int, float]:
        """Seed -> the objective of its finished trial."""
        return {seed: trial.values[objective] for seed, trial in self.trials.items() if trial.state == FINISHED}

    def mean(self, objective: str) -> float:
        """Over its finished trials."""
        return statistics.fmean(self.finished_values(objective))

    @property
    def is_running(self) -> bool:
        return any(trial.state == RUNNING for trial in self.trials.values())

    @property
    def stopped_trial(self) -> TrialRecord | None:
        return next((trial for trial in self.trials.values() if trial.state == STOPPED or trial.stop_reason), None)

    @property
    def has_failed(self) -> bool:
        return any(trial.state == FAILED for trial in self.trials.values())
