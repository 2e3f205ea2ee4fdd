"""What happens to the masks while a network trains: nothing, or what the method does then.

`train_epoch` calls `before_forward` before a step's forward pass, `after_backward` before the optimizer's step and `after_step`
after it; steps of the sparse training count from 1. Methods that prune during training have an updater in a file of their own
(gradual_masks.py, nm_masks.py) and name it in the table of methods.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from trainables.config.trial import TrialConfig
from trainables.models.prunable import prunable_weights
from trainables.pruning.implementations import load_implementation
from trainables.pruning.masks import Masks, full_masks


@dataclass(frozen=True, kw_only=True)
class SparseTraining:
    """What an updater works on.

    Attributes:
        masks: as they are now.
        first_step: steps of the sparse training that are done.
        steps: all of them.
    """

    model: nn.Module
    optimizer: torch.optim.SGD
    masks: Masks
    config: TrialConfig
    first_step: int
    steps: int


class MaskUpdater:
    """Dense training: there are no masks."""

    masks: Masks

    def __init__(self) -> None:
        self.masks = {}

    @classmethod
    def start(cls, training: SparseTraining) -> Self:
        """The updater of one epoch."""
        return cls()

    @classmethod
    def initial_masks(cls, model: nn.Module, config: TrialConfig) -> Masks:
        """The masks that a method which prunes during training begins with."""
        return full_masks(prunable_weights(model, config.prunable.exclude))

    def before_forward(self) -> None:
        """Sets weights to what the network computes with."""

    def after_backward(self, step: int = 0) -> None:
        """Restores what `before_forward` changed, for the optimizer. `step` is 0 outside of training."""

    def after_step(self, step: int) -> None:
        """Sets weights, and changes masks, after the optimizer's step."""

    @contextmanager
    def effective_weights(self) -> Iterator[None]:
        """Inside, the weights are what the network computes with; for evaluation."""
        self.before_forward()
        try:
            yield
        finally:
            self.after_backward()


class FixedMasks(MaskUpdater):
    """Pruned weights are zero after every step, so no gradient, decay or momentum brings them back."""

    def __init__(self, model: nn.Module, masks: Masks) -> None:
        super().__init__()
        parameters = dict(model.named_parameters())
        self.weights: dict[str, Tensor] = {name: parameters[name] for name in masks}
        self._set(masks)

    @classmethod
    def start(cls, training: SparseTraining) -> Self:
        return cls(training.model, training.masks)

    def after_step(self, step: int) -> None:
        if self._keep:
            torch._foreach_mul_(self._values, self._keep)

    def _set(self, masks: Masks) -> None:
        self.masks = masks
        self._values = [self.weights[name].detach() for name in masks]
        self._keep = [torch.empty_like(self.weights[name]).copy_(mask) for name, mask in masks.items()]  # in its memory order


def updater_class(config: TrialConfig) -> type[MaskUpdater]:
    """The updater of the trial's method."""
    if config.is_dense:
        return MaskUpdater
    if not config.pruning.course.is_during_training:
        return FixedMasks
    updater: type[MaskUpdater] = load_implementation(config.pruning.implementation)
    return updater
