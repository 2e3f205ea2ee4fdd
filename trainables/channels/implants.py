"""Implants: channels whose k x k filters keep their centre tap alone (HAP, Yu et al., arXiv:2101.08940).

With one tap left in the middle a filter of padding k // 2 is a 1x1 filter of the same stride, at 1 / k^2 of its weights. The
authors' code has three variants. Here it is the one that keeps one convolution and masks filters to their centre, from their
trained centre values; the others add a 1x1 convolution of zeros, or a depthwise one besides. Shapes: U units of the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from trainables.channels.units import ChannelUnits


@dataclass(frozen=True, kw_only=True)
class Remaining:
    """The units that are kept, and which of these are implants; both bool (U,), on the CPU."""

    kept: Tensor
    implants: Tensor


def implantable_units(model: nn.Module, units: ChannelUnits) -> Tensor:
    """The units that can be implants, bool (U,): all layers that make them are convolutions with taps around a centre.

    A group that a 1x1 convolution or a linear layer makes too has none: its channel would stay whole there.
    """
    layers = dict(model.named_modules())
    implantable_U = torch.zeros(units.count, dtype=torch.bool)
    for group in units.groups:
        implantable_U[group.start : group.start + group.size] = all(_has_centre(layers[name]) for name in group.layers)
    return implantable_U


def _has_centre(layer: nn.Module) -> bool:
    """Whether it is a convolution of k > 1 taps, with the padding at which the centre tap alone is a 1x1 convolution."""
    if not isinstance(layer, nn.Conv2d) or prod(layer.kernel_size) == 1 or any(size % 2 == 0 for size in layer.kernel_size):
        return False
    same = tuple(step * (size // 2) for step, size in zip(layer.dilation, layer.kernel_size, strict=True))
    return layer.padding in ("same", same)


def implant_masks(masks: dict[str, Tensor], units: ChannelUnits, implants_U: Tensor) -> dict[str, Tensor]:
    """Bool masks of weights in which the filters of implants keep their centre tap alone."""
    return {name: _with_centres(name, mask, units, implants_U) for name, mask in masks.items()}


def implants_in(masks: dict[str, Tensor], units: ChannelUnits, implantable_U: Tensor) -> Tensor:
    """The units that masks have as implants, bool (U,): those whose first layer has a centre tap left and nothing else."""
    implants_U = torch.zeros(units.count, dtype=torch.bool)
    for group in units.groups:
        if not bool(implantable_U[group.start]):
            continue
        name = f"{group.name}.weight"
        mask, unit_of_row = masks[name].cpu(), units.unit_of[name, 0].cpu()
        around = (mask & ~_centre(mask)).flatten(1).any(1)
        rows = mask.flatten(1).any(1) & ~around & (unit_of_row >= 0)
        implants_U[unit_of_row[rows]] = True
    return implants_U


def _with_centres(name: str, mask: Tensor, units: ChannelUnits, implants_U: Tensor) -> Tensor:
    unit_of_row = units.unit_of.get((name, 0))
    if mask.dim() != 4 or unit_of_row is None:
        return mask
    with_stays = torch.cat([implants_U.to(mask.device), implants_U.new_zeros(1).to(mask.device)])  # index STAYS is the last
    rows = with_stays[unit_of_row.to(mask.device)]
    return mask & (_centre(mask) | ~rows[:, None, None, None])


def _centre(mask: Tensor) -> Tensor:
    """Bool (h, w): True at the centre tap."""
    height, width = mask.shape[2:]
    centre = torch.zeros(height, width, dtype=torch.bool, device=mask.device)
    centre[height // 2, width // 2] = True
    return centre
