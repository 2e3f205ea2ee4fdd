"""Sanity checks of a mask (Frankle et al., arXiv:2009.08576; Su et al., arXiv:2009.11094): what is left without its details.

Inversion of scores is in rounds.py, reinitialisation in trial/runner.py.
"""

from __future__ import annotations

import torch

from trainables.pruning.masks import Masks
from trainables.runtime.seeding import derived_seed


def shuffled(masks: Masks, seed: int) -> Masks:
    """The masks permuted within every layer, which keep each layer's count; drawn on the CPU."""
    generator = torch.Generator().manual_seed(derived_seed(seed, "shuffle"))
    moved = {}
    for name, mask in masks.items():
        order = torch.randperm(mask.numel(), generator=generator).to(mask.device)
        moved[name] = mask.flatten()[order].view_as(mask)
    return moved
