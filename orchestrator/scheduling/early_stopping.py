"""Ray Tune's early-stopping rules, one instance for each group of a search.

They are asked by the search, not by Tune: Tune's own trials are stages, among them warm-ups and trials of other groups. So an
instance sees a stand-in for a trial, and no controller.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule, TrialScheduler

EPOCH, VALUE = "epoch", "value"


@dataclass(frozen=True, slots=True)
class _Trial:
    """All that the rules look at."""

    trial_id: str


class _Controller:
    """The median rule asks its controller for other trials to run instead; there are none that it may start."""

    def get_live_trials(self) -> list[Any]:
        return []


class RayEarlyStopper:
    """An EarlyStopper around a scheduler of Ray Tune."""

    def __init__(self, scheduler: TrialScheduler) -> None:
        self.scheduler = scheduler
        self.trials: dict[str, _Trial] = {}
        self.stopped: set[str] = set()

    def add(self, key: str) -> None:
        if key not in self.trials:
            self.trials[key] = _Trial(key)
            self.scheduler.on_trial_add(_Controller(), self.trials[key])

    def should_stop(self, key: str, epoch: int, value: float) -> bool:
        """True also for a value that is not a number, which Ray's rules never stop."""
        if not math.isfinite(value):
            return True
        if key in self.stopped and isinstance(self.scheduler, MedianStoppingRule):  # it went on, and the rule forbids that
            return True
        action = self.scheduler.on_trial_result(_Controller(), self.trials[key], {EPOCH: epoch, VALUE: value})
        if action == TrialScheduler.STOP:
            self.stopped.add(key)
        return bool(action == TrialScheduler.STOP)

    def finish(self, key: str, epoch: int, value: float) -> None:
        if isinstance(self.scheduler, MedianStoppingRule):  # others have seen the trial at every rung
            self.scheduler.on_trial_complete(_Controller(), self.trials[key], {EPOCH: epoch, VALUE: value})


def asha(mode: str, grace_epochs: int, reduction: int, epochs: int) -> RayEarlyStopper:
    """Asynchronous successive halving (arXiv:1810.05934): at each rung the best 1/reduction of those seen so far go on.

    Args:
        mode: max or min.
        epochs: sparse epochs of the longest trial.
    """
    return RayEarlyStopper(
        AsyncHyperBandScheduler(
            time_attr=EPOCH, metric=VALUE, mode=mode, max_t=epochs + 1, grace_period=grace_epochs, reduction_factor=reduction
        )
    )


def median(mode: str, grace_epochs: int) -> RayEarlyStopper:
    """A trial stops when its best value is worse than the median of the others' running means (Google Vizier, section 5.1)."""
    rule = MedianStoppingRule(time_attr=EPOCH, metric=VALUE, mode=mode, grace_period=grace_epochs, hard_stop=True)
    return RayEarlyStopper(rule)
