"""How many weights each layer keeps, where that is given and not found by a score.

Shapes and sizes are those of the prunable weights, by name. Read by: methods.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import Tensor


def erk_densities(shapes: Mapping[str, Sequence[int]], density: float) -> dict[str, float]:
    """Densities by layer in proportion to (sum of dimensions) / (product of dimensions), at most 1, together `density`.

    Layers that would be more than dense are dense, and the others are solved for again. Source: Erdos-Renyi-Kernel, Evci et
    al., arXiv:1911.11134, section 3; for linear layers it is Mocanu et al., 2018.
    """
    raw = {name: sum(shape) / prod(shape) for name, shape in shapes.items()}
    sizes = {name: prod(shape) for name, shape in shapes.items()}
    full: set[str] = set()
    while True:
        wanted = density * sum(sizes.values()) - sum(sizes[name] for name in full)
        room = sum(raw[name] * sizes[name] for name in raw if name not in full)
        scale = wanted / room if room else 0.0
        beyond = {name for name in raw if name not in full and raw[name] * scale > 1}
        if not beyond:
            return {name: 1.0 if name in full else raw[name] * scale for name in raw}
        full |= beyond


def fitted_counts(densities: Mapping[str, float], sizes: Mapping[str, int], total: int) -> dict[str, int]:
    """Whole numbers of weights by layer, nearest to the densities and together exactly `total`.

    What rounding leaves over goes to the layers with the largest remainders, the first of equals first.
    """
    exact = {name: densities[name] * sizes[name] for name in sizes}
    counts = {name: min(int(value), sizes[name]) for name, value in exact.items()}
    left = total - sum(counts.values())
    by_remainder = [name for name in sorted(exact, key=lambda name: counts[name] - exact[name]) if counts[name] < sizes[name]]
    for name in by_remainder[:left]:
        counts[name] += 1
    return counts


def scores_for_counts(order: Mapping[str, Tensor], counts: Mapping[str, int]) -> Tensor:
    """One score for every weight of the network, so that the sum of `counts` highest are the first `counts` of every layer.

    Args:
        order: by layer a permutation, int64 (n,): the weights in the order in which they are to be kept.
    """
    parts = []
    for name, positions in order.items():
        place = torch.empty_like(positions)
        place[positions] = torch.arange(len(positions), device=positions.device)
        parts.append(-(place + 1).double() / counts[name] if counts[name] else -(place + 2).double() * 1e9)
    return torch.cat(parts)
