"""What is left of a pruned network: parameters, multiply-adds, and weights that still connect input and output.

A figure that is not known is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from trainables.analysis.multiply_adds import multiply_adds
from trainables.analysis.paths import live_masks
from trainables.pruning.masks import Masks, num_kept
from trainables.runtime.hashing import tensors_sha256


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelStats:
    """Counts of one pruned network.

    Attributes:
        parameters: all of them, biases, norm layers and frozen ones included, shared ones once; `kept_parameters` are those
            that are left.
        flops: multiply-adds of the dense network for one image. What cannot be pruned counts too, such as attention and
            recurrent layers; elementwise operations do not. None if it has an operation that PyTorch's counter does not know.
        kept_flops: the same with the kept weights alone, what a machine would need that skips every pruned weight.
        layer_flops: of the prunable weights, by name; None for one that is used in a way that cannot be counted.
        kept_layer_flops: the same for their kept weights.
        live_weights: kept prunable weights on some path from input to output; the others may as well be pruned. None where
            paths cannot be known (paths.py).
    """

    parameters: int
    kept_parameters: int
    prunable: int
    kept: int
    live_weights: int | None
    flops: int | None
    kept_flops: int | None
    layer_flops: Mapping[str, int | None]
    kept_layer_flops: Mapping[str, int | None]

    @property
    def effective_sparsity(self) -> float | None:
        """Share of the prunable weights that do nothing (Vysogorets and Kempe, arXiv:2107.02306)."""
        return None if self.live_weights is None else 1 - self.live_weights / self.prunable

    @property
    def parameter_sparsity(self) -> float:
        """Share of all parameters that are pruned."""
        return 1 - self.kept_parameters / self.parameters

    @property
    def compression_ratio(self) -> float | None:
        """All parameters over those that are left (Blalock et al., arXiv:2003.03033); None where nothing is left."""
        return self.parameters / self.kept_parameters if self.kept_parameters else None

    @property
    def speedup(self) -> float | None:
        """Multiply-adds of the dense network over those of the pruned one; None where none are left."""
        return self.flops / self.kept_flops if self.flops is not None and self.kept_flops else None


def footprint(model: nn.Module, masks: Masks, image_shape: tuple[int, int, int]) -> ModelStats:
    """The counts of a network under its masks; the network stays as it is."""
    kept = {name: int(mask.count_nonzero()) for name, mask in masks.items()}
    sizes = {name: mask.numel() for name, mask in masks.items()}
    parameters = sum(parameter.numel() for parameter in model.parameters())
    counted = multiply_adds(model, set(masks), image_shape)
    pruned_flops = [None if (uses := counted.uses[name]) is None else uses * (sizes[name] - kept[name]) for name in masks]
    live = live_masks(model, masks, image_shape)
    return ModelStats(
        parameters=parameters,
        kept_parameters=parameters - sum(sizes.values()) + sum(kept.values()),
        prunable=sum(sizes.values()),
        kept=sum(kept.values()),
        live_weights=None if live is None else num_kept(live),
        flops=counted.total,
        kept_flops=None if counted.total is None else counted.total - sum(one or 0 for one in pruned_flops),
        layer_flops=_times(counted.uses, sizes),
        kept_layer_flops=_times(counted.uses, kept),
    )


def _times(uses: Mapping[str, int | None], weights: Mapping[str, int]) -> dict[str, int | None]:
    return {name: None if (often := uses[name]) is None else often * number for name, number in weights.items()}


def masks_sha256(masks: Masks) -> str:
    """64 hex digits over names, shapes and bits: two trials with the same digest kept the same weights."""
    return tensors_sha256({name: mask.cpu() for name, mask in masks.items()})
