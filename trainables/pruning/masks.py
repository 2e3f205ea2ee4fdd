"""Which weights a trial keeps: masks made from scores, applied, counted.

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
    """Positions, int64 (count,), of the kept weights in the flattened network; None stands for all of them.

    `count` is their number, which every caller knows: so a GPU is not waited for.
    """
    flat = flattened(masks)
    return None if count == len(flat) else flat.nonzero_static(size=count).squeeze(1)


def flattened(tensors: Mapping[str, Tensor], positions: Tensor | None = None) -> Tensor:
    """All tensors as one of shape (total,), in their order; of its entries those at `positions` if they are given."""
    flat = torch.cat([tensor.detach().flatten() for tensor in tensors.values()])
    return flat if positions is None else flat.index_select(0, positions)


def topk_masks(scores_S: Tensor, masks: Masks, count: int) -> Masks:
    """Masks that keep the `count` highest-scored survivors of the whole network.

    A pruned weight has no score and never comes back. Equal scores at the threshold are kept in the order of the masks, then
    of position, so two runs give the same masks.

    Args:
        scores_S: one score for each of the S kept weights, in the order of the masks.

    Raises:
        NonFiniteError: a score is infinite or not a number.
    """
    assert 0 <= count <= len(scores_S), f"{count} of {len(scores_S)} surviving weights"
    # The sum is finite in all but broken cases, and takes a tenth of the time.
    if not bool(scores_S.sum().isfinite()) and not bool(scores_S.isfinite().all()):
        raise NonFiniteError(f"{int((~scores_S.isfinite()).sum())} scores of surviving weights are not finite")
    alive = flattened(masks)
    kept = torch.zeros_like(alive).masked_scatter_(alive, _highest(scores_S, count))
    parts = kept.split([mask.numel() for mask in masks.values()])
    return {name: part.view(mask.shape) for (name, mask), part in zip(masks.items(), parts, strict=True)}


def _highest(values: Tensor, count: int) -> Tensor:
    """Bool tensor with exactly `count` True: all values above the threshold, then the first of those equal to it."""
    if count == 0:
        return torch.zeros_like(values, dtype=torch.bool)
    rank = len(values) - count  # position of the smallest kept value in ascending order
    if values.is_cuda:
        threshold = values.sort().values[rank]  # kthvalue has no deterministic kernel there
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
    """Names of weights of which nothing is left: no signal passes such a layer, except around it."""
    return [name for name, mask in masks.items() if not bool(mask.any())]
