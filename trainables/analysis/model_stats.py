"""Statistics of a pruned network: parameters, multiply-adds, and weights that connect input and output.

Unknown figures are None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from trainables.analysis.multiply_adds import multiply_adds
from trainables.analysis.paths import connected_masks
from trainables.pruning.masks import Masks, num_kept
from trainables.runtime.hashing import tensors_sha256


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelStats:
    """Counts of one pruned network.

    Attributes:
        parameters: of the dense network, biases, norm layers and frozen parameters included, shared ones once.
        kept_parameters: the parameters without pruned weights.
        flops: multiply-adds of the dense network for one image. Layers that cannot be pruned are included, such as attention
            and recurrent layers; elementwise operations are not. None if PyTorch's counter does not know an operation.
        kept_flops: the same without pruned weights, as on a machine that skips every one of them.
        layer_flops: of the prunable weights, by name; None for a weight whose use cannot be counted.
        kept_layer_flops: the same for their kept weights.
        connected_weights: kept prunable weights on a path from input to output; the others have no effect. None where paths
            cannot be determined (paths.py).
    """

    parameters: int
    kept_parameters: int
    prunable: int
    kept: int
    connected_weights: int | None
    flops: int | None
    kept_flops: int | None
    layer_flops: Mapping[str, int | None]
    kept_layer_flops: Mapping[str, int | None]

    @property
    def effective_sparsity(self) -> float | None:
        """Share of the prunable weights that are pruned or not connected (Vysogorets and Kempe, arXiv:2107.02306)."""
        return None if self.connected_weights is None else 1 - self.connected_weights / self.prunable

    @property
    def parameter_sparsity(self) -> float:
        """Share of all parameters that are pruned."""
        return 1 - self.kept_parameters / self.parameters

    @property
    def compression_ratio(self) -> float | None:
        """All parameters over the kept ones (Blalock et al., arXiv:2003.03033); None where none is kept."""
        return self.parameters / self.kept_parameters if self.kept_parameters else None

    @property
    def theoretical_speedup(self) -> float | None:
        """Multiply-adds of the dense network over those of the pruned one; None where the pruned one has none."""
        return self.flops / self.kept_flops if self.flops is not None and self.kept_flops else None


def model_stats(
    model: nn.Module, masks: Masks, image_shape: tuple[int, int, int], same_paths: nn.Module | None = None
) -> ModelStats:
    """The statistics of a network under its masks; the network is not changed.

    Args:
        same_paths: a network with the same weights and paths, and activations of PyTorch; the network itself by default.
    """
    kept = {name: int(mask.count_nonzero()) for name, mask in masks.items()}
    sizes = {name: mask.numel() for name, mask in masks.items()}
    parameters = sum(parameter.numel() for parameter in model.parameters())
    counted = multiply_adds(model, set(masks), image_shape)
    pruned_flops = [None if (uses := counted.uses[name]) is None else uses * (sizes[name] - kept[name]) for name in masks]
    connected = connected_masks(same_paths or model, masks, image_shape)
    return ModelStats(
        parameters=parameters,
        kept_parameters=parameters - sum(sizes.values()) + sum(kept.values()),
        prunable=sum(sizes.values()),
        kept=sum(kept.values()),
        connected_weights=None if connected is None else num_kept(connected),
        flops=counted.total,
        kept_flops=None if counted.total is None else counted.total - sum(one or 0 for one in pruned_flops),
        layer_flops=_times(counted.uses, sizes),
        kept_layer_flops=_times(counted.uses, kept),
    )


def _times(uses: Mapping[str, int | None], weights: Mapping[str, int]) -> dict[str, int | None]:
    return {name: None if (count := uses[name]) is None else count * number for name, number in weights.items()}


def masks_sha256(masks: Masks) -> str:
    """64 hex digits over names, shapes and bits; equal for trials that kept the same weights."""
    return tensors_sha256({name: mask.cpu() for name, mask in masks.items()})
