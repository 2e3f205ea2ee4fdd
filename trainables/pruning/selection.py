"""From scores to masks: which weights a round keeps. Single weights here, whole channels in channel_selection.py."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from trainables.channels.units import ChannelUnits
from trainables.config.trial import TrialConfig
from trainables.pruning.masks import Masks, topk_masks
from trainables.pruning.sanity_checks import shuffled
from trainables.pruning.sparsity_schedules import kept_after


class Selection(Protocol):
    """What a trial removes together, and how much of it."""

    @property
    def units(self) -> ChannelUnits | None:
        """Of the network, if whole channels are removed."""

    def survivors(self, masks: Masks, config: TrialConfig, round_: int) -> int:
        """Weights that survive before a round (1-based)."""

    def keep(self, masks: Masks, config: TrialConfig, round_: int) -> int:
        """Weights that are kept after it; of channels about so many."""

    def select(self, scores: Tensor, masks: Masks, config: TrialConfig, round_: int) -> Masks:
        """The masks after a round, by one score for each of the S surviving weights, or of the U channel units.

        Raises:
            NonFiniteError: a score is infinite or not a number.
        """

    def shuffled(self, masks: Masks, seed: int) -> Masks:
        """Masks that keep as much of every layer, at random."""

    def with_other_tensors(self, masks: Masks, model: nn.Module) -> Masks:
        """The masks, and those of what goes with the pruned weights, such as norm layers."""

    def finished(self, model: nn.Module, masks: Masks) -> nn.Module:
        """The network to publish, which may be smaller."""


class WeightSelection:
    """The weights with the highest scores in the whole network."""

    units = None

    def survivors(self, masks: Masks, config: TrialConfig, round_: int) -> int:
        return kept_after(round_ - 1, config, _prunable(masks))

    def keep(self, masks: Masks, config: TrialConfig, round_: int) -> int:
        return kept_after(round_, config, _prunable(masks))

    def select(self, scores: Tensor, masks: Masks, config: TrialConfig, round_: int) -> Masks:
        return topk_masks(scores, masks, self.keep(masks, config, round_))

    def shuffled(self, masks: Masks, seed: int) -> Masks:
        return shuffled(masks, seed)

    def with_other_tensors(self, masks: Masks, model: nn.Module) -> Masks:
        return masks

    def finished(self, model: nn.Module, masks: Masks) -> nn.Module:
        return model


def _prunable(masks: Masks) -> int:
    return sum(mask.numel() for mask in masks.values())
