"""The budget of a search: nothing new begins that would not end within it."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

EPSILON = 1e-9


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a search may use; None is no limit."""

    hours: float | None = None
    gpu_hours: float | None = None
    epochs: int | None = None
    configurations: int | None = None


@dataclass(kw_only=True)
class Meter:
    """What a search has used, and what its running trials are going to use.

    Attributes:
        gpus_per_trial: share of a GPU that a trial reserves.
        seconds_per_epoch: of each trial that has ended; empty at the start, when nothing is known.
        running: trial -> expected epochs.
    """

    limits: Limits
    gpus_per_trial: float = 0.0
    epochs: int = 0
    gpu_seconds: float = 0.0
    configurations: int = 0
    seconds_per_epoch: list[float] = field(default_factory=list)
    running: dict[str, int] = field(default_factory=dict)

    def begin(self, key: str, epochs: int, *, new_configuration: bool) -> None:
        self.running[key] = self.running.get(key, 0) + epochs
        self.configurations += new_configuration

    def end(self, key: str, epochs: int, seconds: float, elsewhere: int = 0) -> None:
        """A trial ended.

        Args:
            epochs: that were trained for it.
            seconds: of its own stage.
            elsewhere: how many of the epochs were those of a shared warm-up, which has a stage of its own. An epoch there takes
                as long as one here.
        """
        self.running.pop(key, None)
        self.epochs += epochs
        if seconds and epochs > elsewhere:
            per_epoch = seconds / (epochs - elsewhere)
            self.seconds_per_epoch.append(per_epoch)
            seconds += elsewhere * per_epoch
        self.gpu_seconds += seconds * self.gpus_per_trial

    def excess(self, epochs: int, elapsed_s: float, *, new_configuration: bool) -> str:
        """Why a trial of so many epochs must not begin; empty if it may."""
        limits = self.limits
        if limits.configurations is not None and new_configuration and self.configurations >= limits.configurations:
            return f"budget.configurations: {limits.configurations} configurations have begun"
        used = self.epochs + sum(self.running.values())
        if limits.epochs is not None and used + epochs > limits.epochs:
            return f"budget.epochs: {used} of {limits.epochs} epochs are used, another trial needs {epochs}"
        if not self.seconds_per_epoch:
            return self._overdue(elapsed_s)
        per_epoch = statistics.median(self.seconds_per_epoch)
        needed = epochs * per_epoch
        if limits.hours is not None and elapsed_s + needed > limits.hours * 3600 + EPSILON:
            used_text = f"{_hours(elapsed_s)} of {_hours(limits.hours * 3600)}"
            return f"budget.hours: {used_text} are used, another trial needs {_hours(needed)}"
        gpu_seconds = self.gpu_seconds + sum(self.running.values()) * per_epoch * self.gpus_per_trial
        needed *= self.gpus_per_trial
        if limits.gpu_hours is not None and needed and gpu_seconds + needed > limits.gpu_hours * 3600 + EPSILON:
            used_text = f"{_hours(gpu_seconds)} of {_hours(limits.gpu_hours * 3600)}"
            return f"budget.gpu_hours: {used_text} are used, another trial needs {_hours(needed)}"
        return ""

    def _overdue(self, elapsed_s: float) -> str:
        """Before anything was measured only a limit that has passed already ends the search."""
        if self.limits.hours is not None and elapsed_s > self.limits.hours * 3600:
            return f"budget.hours: {_hours(self.limits.hours * 3600)} have passed"
        return ""


def _hours(seconds: float) -> str:
    """Seconds in the unit that reads best."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.2f} h"
