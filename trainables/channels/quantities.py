"""Sizes of a network that fall when channels are removed: channels, weights, parameters, multiply-adds.

A size is a sum of products of the channels that remain, so it is computed for any choice of units without building a network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Protocol

from torch import Tensor, nn

from trainables.channels.units import ChannelUnits, Place


class Size(Protocol):
    """A size of a network, for any choice of its units."""

    def of(self, units: ChannelUnits, kept_U: Tensor, implants_U: Tensor | None = None) -> float:
        """The size with these units, bool (U,), of which some may be implants."""


@dataclass(frozen=True, kw_only=True)
class Term:
    """A product of a factor and of the numbers of indices that remain in some dimensions.

    Attributes:
        taps: of a filter; an implant (implants.py) has one of them, and counts so much less among the outputs.
    """

    factor: float
    places: tuple[Place, ...]
    taps: int = 1

    def of(self, counts: Mapping[Place, int], implants: Mapping[Place, int]) -> float:
        """Its value, by the numbers of kept indices and of those among the outputs that are implants."""
        value = self.factor * prod(counts[place] for place in self.places)
        for output in (place for place in self.places if place in implants):
            others = prod(counts[place] for place in self.places if place != output)
            value -= self.factor / self.taps * (self.taps - 1) * implants[output] * others
        return value


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A `Size` as a sum of terms and a constant, in units of its own."""

    terms: tuple[Term, ...]
    constant: float = 0.0

    def of(self, units: ChannelUnits, kept_U: Tensor, implants_U: Tensor | None = None) -> float:
        """The size with these units, bool (U,), of which some may be implants."""
        counts = {place: len(indices) for place, indices in units.kept_indices(kept_U).items()}
        implants = {} if implants_U is None else units.output_counts(implants_U)
        return self.constant + sum(term.of(counts, implants) for term in self.terms)


def channels_of(units: ChannelUnits) -> Quantity:
    """The output channels (neurons) of all layers that can lose some; an implant is one."""
    makers = (layer for group in units.groups for layer in group.layers)
    return Quantity(terms=tuple(Term(factor=1.0, places=((f"{layer}.weight", 0),)) for layer in makers))


def entries_of(tensors: Mapping[str, Tensor], units: ChannelUnits) -> Quantity:
    """The entries of tensors, such as those of the prunable weights."""
    return priced_entries(tensors, dict.fromkeys(tensors, 1.0), units)


def parameters_of(model: nn.Module, units: ChannelUnits) -> Quantity:
    """All parameters of a network."""
    return entries_of(dict(model.named_parameters()), units)


def priced_entries(
    tensors: Mapping[str, Tensor], prices: Mapping[str, float], units: ChannelUnits, constant: float = 0.0
) -> Quantity:
    """The entries of tensors, each at the price of its tensor, such as multiply-adds for an image."""
    terms = []
    for name, tensor in tensors.items():
        places = tuple((name, dim) for dim in range(tensor.dim()) if (name, dim) in units.unit_of)
        fixed = prod(size for dim, size in enumerate(tensor.shape) if (name, dim) not in places)
        terms.append(Term(factor=prices[name] * fixed, places=places, taps=prod(tensor.shape[2:])))
    return Quantity(terms=tuple(terms), constant=constant)
