"""SPDY's database: the weights of each layer at each of its options, and the network stitched from them (arXiv:2201.13096)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainables.models.losses import Loss
from trainables.pruning.adaprune import BATCH, fit_levels, layer_samples
from trainables.pruning.masks import Masks
from trainables.pruning.score_gradients import scoring_mode
from trainables.pruning.timed_layers import TimedLayers
from trainables.runtime.heartbeat import beat
from trainables.runtime.seeding import derived_seed


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """How layers are reconstructed.

    Attributes:
        dense: the network before pruning; it stays as it is.
        scores: of its prunable weights, by name, in their shapes.
        images: normalised, (N, C, H, W).
        passes: over them, at each level.
    """

    dense: nn.Module
    scores: Mapping[str, Tensor]
    images: Tensor
    passes: int
    seed: int

    def levels(self, name: str, counts: Sequence[int], last: Tensor | None = None) -> list[Tensor]:
        """The weights of a layer that keeps these falling numbers of weights, each fitted from the one before.

        Args:
            last: the mask at the last of them; by default that of the highest scores.
        """
        masks = nested_masks(self.scores[name], counts, last)
        layer = self.dense.get_submodule(name.removesuffix(".weight"))
        samples = layer_samples(self.dense, name.removesuffix(".weight"), self.images) if self.passes else None
        if samples is None:
            return [layer.get_parameter("weight").detach() * mask for mask in masks]
        return fit_levels(layer, *samples, masks, passes=self.passes, seed=derived_seed(self.seed, f"levels of {name}"))

    def with_masks(self, timed: TimedLayers, masks: Masks) -> dict[str, Tensor]:
        """The weights under these masks, each after the levels of its layer that keep more."""
        found = {}
        for name, mask in masks.items():
            count = int(mask.count_nonzero())
            more = [one for one in timed.layers[name].counts[1:] if one > count]
            if count < mask.numel():
                found[name] = self.levels(name, [*more, count], mask)[-1]
        return found


def nested_masks(scores: Tensor, counts: Sequence[int], last: Tensor | None = None) -> list[Tensor]:
    """Masks with falling numbers of the highest scores, each a part of the one before; of equal scores the first are kept.

    Args:
        last: the mask at the last count, whose weights count as higher than all others.
    """
    order = scores.flatten().sort(descending=True, stable=True).indices
    if last is not None:
        is_last = last.flatten()[order]
        order = torch.cat([order[is_last], order[~is_last]])
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    return [(rank < count).view(scores.shape) for count in counts]


class LayerDatabase:
    """Weights of all layers at all options, in memory beside the network, and the loss of what is stitched from them."""

    def __init__(self, reconstruction: Reconstruction, timed: TimedLayers, labels_N: Tensor, summed_loss: Loss) -> None:
        self.images, self.labels, self.summed_loss = reconstruction.images, labels_N, summed_loss
        self.stitched = copy.deepcopy(reconstruction.dense)
        weights = dict(self.stitched.named_parameters())
        self.weights: dict[str, dict[int, Tensor]] = {}
        for name, layer in timed.layers.items():
            levels = reconstruction.levels(name, layer.counts[1:])
            dense = weights[name].detach().clone()
            self.weights[name] = dict(zip(layer.counts, [dense, *levels], strict=True))
        self.losses: dict[tuple[int, ...], float] = {}

    def loss(self, counts: Mapping[str, int]) -> float:
        """The mean loss on the images of the network whose layers keep so many weights, in eval mode; known ones are kept."""
        chosen = tuple(counts[name] for name in self.weights)
        if chosen not in self.losses:
            self._stitch(counts)
            self.losses[chosen] = self._mean_loss()
        return self.losses[chosen]

    def _stitch(self, counts: Mapping[str, int]) -> None:
        with torch.no_grad():
            for name, options in self.weights.items():
                self.stitched.get_parameter(name).copy_(options[counts[name]])

    def _mean_loss(self) -> float:
        total = 0.0
        with torch.no_grad(), scoring_mode(self.stitched, "running"):
            for images, labels in zip(self.images.split(8 * BATCH), self.labels.split(8 * BATCH), strict=True):
                total += float(self.summed_loss(self.stitched(images).float(), labels))
                beat()
        return total / len(self.labels)
