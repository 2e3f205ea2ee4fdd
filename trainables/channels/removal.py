"""Removes channel units from a network, which becomes smaller and computes the same as with these units masked."""

from __future__ import annotations

from torch import Tensor, nn

from trainables.channels.resizing import resize
from trainables.channels.units import ChannelUnits


def remove_units(model: nn.Module, units: ChannelUnits, kept_U: Tensor) -> None:
    """Removes the units that are not kept, bool (U,), in place; tensors that become smaller are new objects."""
    state = model.state_dict()
    for (name, dim), indices in units.kept_indices(kept_U.cpu()).items():
        state[name] = state[name].index_select(dim, indices.to(state[name].device))
    resize(model, state)
