"""Mask updaters: what happens to weights and masks while a network trains.

`train_epoch` calls `before_forward` before a step's forward pass, `after_backward` before the optimizer's step and `after_step`
after it; steps of the sparse training count from 1. The table of methods names the updater of each method that prunes during
training (gradual_masks.py, nm_masks.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor, nn

from trainables.channels.units import ChannelUnits
from trainables.config.trial import TrialConfig
from trainables.models.prunable import prunable_weights
from trainables.pruning.implementations import load_implementation
from trainables.pruning.masks import Masks, full_masks
from trainables.pruning.selection import Selection, WeightSelection


@dataclass(frozen=True, kw_only=True)
class SparseTraining:
    """The training that an updater takes part in.

    Attributes:
        masks: the current masks.
        first_step: completed steps of the sparse training.
        steps: all steps of the sparse training.
        selection: which weights or channels go together.
        state: what `MaskUpdater.finish` gave at the end of the epoch before; empty at the start.
        pass_over_images: runs the network on all training images, without augmentation, in eval mode.
    """

    model: nn.Module
    optimizer: torch.optim.SGD
    masks: Masks
    config: TrialConfig
    first_step: int
    steps: int
    selection: Selection = field(default_factory=WeightSelection)
    state: Mapping[str, Tensor] = field(default_factory=dict)
    pass_over_images: Callable[[], object] = lambda: None

    def step_at(self, share: float) -> int:
        """The step that ends this share of the training: neither none nor all of it, where it has several steps."""
        return max(1, min(self.steps - 1, round(share * self.steps)))


class MaskUpdater:
    """The updater of dense training, which has no masks.

    Attributes:
        metrics: of what it did in this epoch.
        changes_forward: whether the network computes something else besides, by hooks, which a compiled network would not see.
    """

    masks: Masks
    changes_forward = False

    def __init__(self) -> None:
        self.masks = {}
        self.metrics: dict[str, float] = {}

    @classmethod
    def start(cls, training: SparseTraining) -> Self:
        """The updater for one epoch."""
        return cls()

    @classmethod
    def initial_masks(cls, model: nn.Module, config: TrialConfig) -> Masks:
        """The first masks of a method that prunes during training."""
        return full_masks(prunable_weights(model, config.prunable.exclude))

    @classmethod
    def check(
        cls, model: nn.Module, config: TrialConfig, units: ChannelUnits | None, image_shape: tuple[int, int, int]
    ) -> None:
        """Raises ConfigError for a network that the method cannot train; its weights do not matter."""

    def penalty(self) -> Tensor | None:
        """A term of the loss besides that of the images, after the forward pass; None without one."""
        return None

    def finish(self) -> dict[str, Tensor]:
        """Ends the epoch: takes away what it added to the network; what the next epoch's updater needs of it, by name."""
        return {}

    def before_forward(self) -> None:
        """Sets the weights to those of the sparse network."""

    def after_backward(self, step: int = 0) -> None:
        """Undoes `before_forward` for the optimizer. `step` is 0 outside of training."""

    def after_step(self, step: int) -> None:
        """Updates masks and applies them after the optimizer's step."""

    @contextmanager
    def effective_weights(self) -> Iterator[None]:
        """The weights of the sparse network, for evaluation."""
        self.before_forward()
        try:
            yield
        finally:
            self.after_backward()


class FixedMasks(MaskUpdater):
    """Sets pruned weights to zero after every step, so that no gradient, decay or momentum revives them."""

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
        self._keep = [
            torch.empty_like(self.weights[name]).copy_(mask) for name, mask in masks.items()
        ]  # in the weight's memory order


def updater_class(config: TrialConfig) -> type[MaskUpdater]:
    """The updater of the trial's method."""
    if config.is_dense:
        return MaskUpdater
    if not config.pruning.course.is_during_training:
        return FixedMasks
    updater: type[MaskUpdater] = load_implementation(config.pruning.implementation)
    return updater
