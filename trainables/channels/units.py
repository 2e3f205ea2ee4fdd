"""Channel units: what a network loses together when one of its channels is removed.

A unit is a set of entries in several tensors: the filters that make a channel, its places in norm layers, and the weights that
read it. Layers whose outputs are added, and channels of a grouped convolution, share units. Shapes: U units of the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

STAYS = -1  # instead of a unit: an entry that is never removed
Place = tuple[str, int]  # name of a tensor in the state dict, and one of its dimensions


@dataclass(frozen=True, kw_only=True)
class UnitGroup:
    """Units that are made by the same layers.

    Attributes:
        name: of the first of these layers.
        layers: all layers whose outputs the units are.
        start, size: its units are start, ..., start + size - 1.
    """

    name: str
    layers: tuple[str, ...]
    start: int
    size: int

    @property
    def units(self) -> range:
        return range(self.start, self.start + self.size)


@dataclass(frozen=True, kw_only=True)
class ChannelUnits:
    """The units of a network.

    Attributes:
        groups: in the order of the network; each must keep at least one unit.
        unit_of: for a dimension of a tensor, int64 (size of the dimension,): the unit that an index belongs to, or STAYS.
            Dimensions that lose nothing are left out.
        fixed: layers whose channels cannot be removed -> why.
    """

    groups: tuple[UnitGroup, ...]
    unit_of: Mapping[Place, Tensor]
    fixed: Mapping[str, str]

    @property
    def count(self) -> int:
        return sum(group.size for group in self.groups)

    def kept_indices(self, kept_U: Tensor) -> dict[Place, Tensor]:
        """For each dimension that has units, its indices that remain, int64, ascending."""
        with_stays = torch.cat([kept_U, kept_U.new_ones(1)])  # index STAYS is the last
        return {place: with_stays[units].nonzero().flatten() for place, units in self.unit_of.items()}

    def output_counts(self, chosen_U: Tensor) -> dict[Place, int]:
        """For each first dimension that has units, how many of its indices belong to these, bool (U,)."""
        without_stays = torch.cat([chosen_U, chosen_U.new_zeros(1)])
        return {place: int(without_stays[units].sum()) for place, units in self.unit_of.items() if place[1] == 0}

    def mask(self, tensor: str, shape: torch.Size, kept_U: Tensor) -> Tensor:
        """Bool mask of a tensor: True where no removed unit has an entry."""
        with_stays = torch.cat([kept_U, kept_U.new_ones(1)])
        mask = torch.ones(shape, dtype=torch.bool, device=kept_U.device)
        for dim, size in enumerate(shape):
            units = self.unit_of.get((tensor, dim))
            if units is not None:
                mask &= with_stays[units].view([size if each == dim else 1 for each in range(len(shape))])
        return mask

    @property
    def tensors(self) -> list[str]:
        """Names of all tensors that have units."""
        return list(dict.fromkeys(tensor for tensor, _ in self.unit_of))

    def to(self, device: torch.device) -> ChannelUnits:
        moved = {place: units.to(device) for place, units in self.unit_of.items()}
        return ChannelUnits(groups=self.groups, unit_of=moved, fixed=self.fixed)
