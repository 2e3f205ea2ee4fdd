"""Sanity checks of a mask (Frankle et al., arXiv:2009.08576; Su et al., arXiv:2009.11094).

Inversion of scores is in rounds.py, reinitialisation in trial/runner.py.
"""

from __future__ import annotations

import torch

from trainables.pruning.masks import Masks
from trainables.runtime.seeding import derived_seed


def shuffled(masks: Masks, seed: int) -> Masks:
    """The masks with the kept weights of each layer permuted within the layer; drawn on the CPU."""
    generator = torch.Generator().manual_seed(derived_seed(seed, "shuffle"))
    permuted = {}
    for name, mask in masks.items():
        order = torch.randperm(mask.numel(), generator=generator).to(mask.device)
        permuted[name] = mask.flatten()[order].view_as(mask)
    return permuted
