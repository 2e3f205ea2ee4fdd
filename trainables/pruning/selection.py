"""From scores to masks: which weights a round keeps. Single weights here, whole channels in channel_selection.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

from torch import Tensor, nn

from trainables.channels.units import ChannelUnits
from trainables.config.trial import TrialConfig
from trainables.pruning.masks import Masks, topk_masks
from trainables.pruning.sanity_checks import shuffled
from trainables.pruning.sparsity_distributions import erk, round_to_total
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

    def metrics(self, masks: Masks, config: TrialConfig) -> dict[str, float]:
        """Figures of the masks after a round that this choice alone has."""

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

    def metrics(self, masks: Masks, config: TrialConfig) -> dict[str, float]:
        return {}

    def finished(self, model: nn.Module, masks: Masks) -> nn.Module:
        return model


class LayerwiseSelection(WeightSelection):
    """The weights with the highest scores in each layer, whose share of all kept weights does not depend on scores."""

    def __init__(self, layers: Literal["uniform", "erk"]) -> None:
        self.layers = layers

    def select(self, scores: Tensor, masks: Masks, config: TrialConfig, round_: int) -> Masks:
        return highest_by_layer(scores, masks, self.counts(masks, kept_by_layer(masks), self.keep(masks, config, round_)))

    def counts(self, masks: Masks, surviving: Mapping[str, int], total: int) -> dict[str, int]:
        """Kept weights by layer, in all `total`; rounding gives no layer more than the weights that it still has."""
        shapes = {name: tuple(mask.shape) for name, mask in masks.items()}
        sizes = {name: mask.numel() for name, mask in masks.items()}
        density = total / sum(sizes.values())
        densities = erk(shapes, density) if self.layers == "erk" else dict.fromkeys(sizes, density)
        rounded = round_to_total(densities, sizes, total)
        counts = {name: min(count, surviving[name]) for name, count in rounded.items()}
        for name in sorted(counts, key=lambda name: counts[name] - densities[name] * sizes[name]):
            more = min(surviving[name] - counts[name], total - sum(counts.values()))
            counts[name] += more
        return counts


def kept_by_layer(masks: Masks) -> dict[str, int]:
    """Kept weights by layer."""
    return {name: int(mask.count_nonzero()) for name, mask in masks.items()}


def highest_by_layer(scores_S: Tensor, masks: Masks, counts: Mapping[str, int]) -> Masks:
    """Masks that keep in each layer so many of the surviving weights, those with the highest scores."""
    by_layer = zip(masks.items(), scores_S.split(list(kept_by_layer(masks).values())), strict=True)
    return {name: topk_masks(values, {name: mask}, counts[name])[name] for (name, mask), values in by_layer}


def _prunable(masks: Masks) -> int:
    return sum(mask.numel() for mask in masks.values())
