"""Sparsity distributions: how many weights each layer keeps, if scores do not decide it.

Shapes and sizes are those of the prunable weights, by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

import torch
from torch import Tensor

from trainables.errors import ConfigError

LayerCounts = Callable[[str], Mapping[str, int] | None]  # trial key -> kept weights by layer, or None if it has no result


def erk(shapes: Mapping[str, Sequence[int]], density: float) -> dict[str, float]:
    """Densities by layer in proportion to (sum of dimensions) / (product of dimensions), at most 1 and on average `density`.

    Layers whose density would exceed 1 are dense, and the others are solved for again. Source: Erdos-Renyi-Kernel, Evci et
    al., arXiv:1911.11134, section 3; for linear layers it is Mocanu et al., 2018.
    """
    raw = {name: sum(shape) / prod(shape) for name, shape in shapes.items()}
    sizes = {name: prod(shape) for name, shape in shapes.items()}
    full: set[str] = set()
    while True:
        target = density * sum(sizes.values()) - sum(sizes[name] for name in full)
        room = sum(raw[name] * sizes[name] for name in raw if name not in full)
        scale = target / room if room else 0.0
        beyond = {name for name in raw if name not in full and raw[name] * scale > 1}
        if not beyond:
            return {name: 1.0 if name in full else raw[name] * scale for name in raw}
        full |= beyond


def round_to_total(densities: Mapping[str, float], sizes: Mapping[str, int], total: int) -> dict[str, int]:
    """Numbers of weights by layer, nearest to the densities and in total exactly `total`.

    What remains after rounding goes to the layers with the largest remainders, of equal ones to the first.
    """
    exact = {name: densities[name] * sizes[name] for name in sizes}
    counts = {name: min(int(value), sizes[name]) for name, value in exact.items()}
    left = total - sum(counts.values())
    by_remainder = [name for name in sorted(exact, key=lambda name: counts[name] - exact[name]) if counts[name] < sizes[name]]
    for name in by_remainder[:left]:
        counts[name] += 1
    return counts


def counts_of_trial(counts: Mapping[str, int] | None, key: str, sizes: Mapping[str, int], total: int) -> dict[str, int]:
    """The layer counts of another trial, which must have the same network and the same sparsity.

    Raises:
        ConfigError: that trial has no result, another network, or another number of weights.
    """
    if counts is None:
        raise ConfigError(f"random.layers: trial {key} has no result in this storage", "run it first")
    if list(counts) != list(sizes) or any(counts[name] > sizes[name] for name in sizes):
        raise ConfigError(f"random.layers: trial {key} has another network", f"its layers are {', '.join(counts)}")
    if (kept := sum(counts.values())) != total:
        raise ConfigError(f"random.layers: trial {key} keeps {kept} weights, this sparsity {total}", "use its sparsity")
    return dict(counts)


def random_masks(weights: Mapping[str, Tensor], counts: Mapping[str, int], seed: int) -> dict[str, Tensor]:
    """Masks that keep `counts` weights of each layer, uniformly at random; drawn on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    masks = {}
    for name, weight in weights.items():
        kept = torch.randperm(weight.numel(), generator=generator)[: counts[name]]
        mask = torch.zeros(weight.numel(), dtype=torch.bool)
        mask[kept] = True
        masks[name] = mask.view(weight.shape).to(weight.device)
    return masks
