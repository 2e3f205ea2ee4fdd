"""Which sparse epochs are rungs, and the interface of what decides at them.

Ray's schedulers decide (orchestrator/scheduling/early_stopping.py); this folder knows no Ray.
"""

from __future__ import annotations

from typing import Protocol


class EarlyStopper(Protocol):
    """Decides for one group which trials go on at a rung. Its state is a function of the calls."""

    def add(self, key: str) -> None:
        """A trial begins."""

    def should_stop(self, key: str, epoch: int, value: float) -> bool:
        """Whether the trial should stop after `epoch` sparse epochs with this value of the objective."""

    def finish(self, key: str, epoch: int, value: float) -> None:
        """A trial has trained all its epochs."""


def asha_rungs(grace_epochs: int, reduction: int, epochs: int) -> tuple[int, ...]:
    """Sparse epochs grace, grace * reduction, grace * reduction^2, ... below `epochs`."""
    rungs, epoch = [], grace_epochs
    while epoch < epochs:
        rungs.append(epoch)
        epoch *= reduction
    return tuple(rungs)


def median_rungs(grace_epochs: int, epochs: int) -> tuple[int, ...]:
    """Every sparse epoch from `grace_epochs` on but the last."""
    return tuple(range(grace_epochs, epochs))
