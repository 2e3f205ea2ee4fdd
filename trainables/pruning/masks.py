"""Makes masks, which say which weights a trial keeps, from scores; applies and counts them.

A mask is a bool tensor in its weight's shape; True means kept. Masks only shrink. Shapes: S surviving weights of the network,
layer by layer.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trainables.errors import NonFiniteError

Masks = dict[str, Tensor]


def full_masks(weights: Mapping[str, Tensor]) -> Masks:
    """Masks that keep every weight."""
    return {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}


def surviving_indices(masks: Masks, count: int) -> Tensor | None:
    """Positions, int64 (count,), of the kept weights in the flattened network; None if all are kept.

    The caller passes their number, `count`, so that the CPU need not wait for a GPU.
    """
    flat = flattened(masks)
    return None if count == len(flat) else flat.nonzero_static(size=count).squeeze(1)


def flattened(tensors: Mapping[str, Tensor], positions: Tensor | None = None) -> Tensor:
    """All tensors as one of shape (total,), in their order; only its entries at `positions` unless that is None."""
    flat = torch.cat([tensor.detach().flatten() for tensor in tensors.values()])
    return flat if positions is None else flat.index_select(0, positions)


def topk_masks(scores_S: Tensor, masks: Masks, count: int) -> Masks:
    """Masks that keep the `count` surviving weights with the highest scores in the whole network.

    A pruned weight has no score and stays pruned. Of equal scores at the threshold the first are kept, in the order of the
    masks and of positions, so that two runs give the same masks.

    Args:
        scores_S: one score for each of the S kept weights, in the order of the masks.

    Raises:
        NonFiniteError: a score is infinite or not a number.
    """
    assert 0 <= count <= len(scores_S), f"{count} of {len(scores_S)} surviving weights"
    # The sum is almost always finite if all scores are, and ten times faster to check.
    if not bool(scores_S.sum().isfinite()) and not bool(scores_S.isfinite().all()):
        raise NonFiniteError(f"{int((~scores_S.isfinite()).sum())} scores of surviving weights are not finite")
    surviving = flattened(masks)
    kept = torch.zeros_like(surviving).masked_scatter_(surviving, _highest(scores_S, count))
    layers = kept.split([mask.numel() for mask in masks.values()])
    return {name: layer.view(mask.shape) for (name, mask), layer in zip(masks.items(), layers, strict=True)}


def _highest(values: Tensor, count: int) -> Tensor:
    """Bool tensor with exactly `count` True: all values above the threshold, then the first of those equal to it."""
    if count == 0:
        return torch.zeros_like(values, dtype=torch.bool)
    rank = len(values) - count  # position of the smallest kept value in ascending order
    if values.is_cuda:
        threshold = values.sort().values[rank]  # kthvalue has no deterministic CUDA kernel
    else:
        threshold = values.kthvalue(rank + 1).values
    kept = values >= threshold
    if surplus := int(kept.count_nonzero()) - count:
        kept[(values == threshold).nonzero().flatten()[-surplus:]] = False
    return kept


def apply_masks(weights: Mapping[str, Tensor], masks: Masks) -> None:
    """Sets every pruned weight to zero, in place."""
    with torch.no_grad():
        for name, weight in weights.items():
            weight.masked_fill_(~masks[name], 0.0)


def num_kept(masks: Masks) -> int:
    return int(torch.stack([mask.sum() for mask in masks.values()]).sum())


def collapsed_layers(masks: Masks) -> list[str]:
    """Names of weights that are pruned entirely, so that no signal passes through their layer."""
    return [name for name, mask in masks.items() if not bool(mask.any())]
