"""Which weights a trial keeps: masks made from scores, applied, counted.

A mask is a bool tensor in its weight's shape; True means kept. Masks only shrink. Reads: nothing. Read by: pruning.py,
training.py, sparse_model.py.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trainables.failures import NonFiniteError

Masks = dict[str, Tensor]


def full_masks(weights: Mapping[str, Tensor]) -> Masks:
    """Masks that keep every weight."""
    return {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}


def keep_highest(scores: dict[str, Tensor], masks: Masks, count: int) -> Masks:
    """Masks that keep the `count` highest-scored survivors of the whole network.

    Scores of weights that are already pruned do not matter, so a pruned weight never comes back. Equal scores at the
    threshold are kept in the order of `scores`, then of position, so two runs give the same masks.

    Raises:
        NonFiniteError: the score of a surviving weight is infinite or not a number.
    """
    alive = torch.cat([masks[name].flatten() for name in scores])
    candidates = torch.cat([score.flatten() for score in scores.values()])[alive]
    assert 0 <= count <= len(candidates), f"{count} of {len(candidates)} surviving weights"
    if not bool(torch.isfinite(candidates).all()):
        raise NonFiniteError(f"{int((~torch.isfinite(candidates)).sum())} scores of surviving weights are not finite")
    kept = torch.zeros_like(alive)
    kept[alive] = _highest(candidates, count)
    parts = kept.split([score.numel() for score in scores.values()])
    return {name: part.view(score.shape) for (name, score), part in zip(scores.items(), parts, strict=True)}


def _highest(values: Tensor, count: int) -> Tensor:
    """Bool tensor with exactly `count` True: all values above the threshold, then the first of those equal to it."""
    if count == 0:
        return torch.zeros_like(values, dtype=torch.bool)
    rank = len(values) - count  # position of the smallest kept value in ascending order
    if values.is_cuda:
        threshold = values.sort().values[rank]  # kthvalue has no deterministic kernel there
    else:
        threshold = values.kthvalue(rank + 1).values
    above = values > threshold
    equal = values == threshold
    return above | (equal & (equal.cumsum(0) <= count - above.sum()))


def apply_masks(weights: Mapping[str, Tensor], masks: Masks) -> None:
    """Sets every pruned weight to zero, in place."""
    with torch.no_grad():
        for name, weight in weights.items():
            weight.masked_fill_(~masks[name], 0.0)


def num_kept(masks: Masks) -> int:
    return int(torch.stack([mask.sum() for mask in masks.values()]).sum())


def emptied_layers(masks: Masks) -> list[str]:
    """Names of weights of which nothing is left: no signal passes such a layer, except around it."""
    return [name for name, mask in masks.items() if not bool(mask.any())]
