"""The latency of a network by the timing table for any choice of its channels, and the best choice within a latency.

As HALP (the companion of arXiv:2110.12007) does, a choice keeps the highest scores in all within a time, by a knapsack in which
a layer has its present number of inputs. Here the choice is exact, one number of channels for each group (budget.py). As inputs
fall too, the network is then faster than the knapsack has it; so the longest time of a knapsack is sought, by halving, whose
choice meets the target with its own inputs.

Shapes: U channel units of the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.channels.units import STAYS, ChannelUnits, UnitGroup
from trainables.custom.timing_table import ChannelTimes, TimingTable
from trainables.errors import ConfigError
from trainables.pruning.budget import InfeasibleBudgetError, cheapest_options

ROUNDING = 1e-9  # by which a sum of floats may miss a share
HALVINGS = 12
VALUE_OF_ANY = 1e-6  # of the largest score: what a channel is worth besides its score, so that none goes for nothing
GroupOptions = tuple[Tensor, list[float], list[float]]


@dataclass(frozen=True, kw_only=True)
class TableLatency:
    """Seconds of a network by its channels.

    Attributes:
        layers: times by layer.
        rest: time of all that is no layer.
    """

    layers: Mapping[str, ChannelTimes]
    rest: float

    def of(self, units: ChannelUnits, kept_U: Tensor, implants_U: Tensor | None = None) -> float:
        """The time with these units, bool (U,); a table has no times of implants."""
        assert implants_U is None or not bool(implants_U.any())
        counts = self.counts(units, kept_U)
        return self.rest + sum(times.at(*counts[name]) for name, times in self.layers.items())

    def counts(self, units: ChannelUnits, kept_U: Tensor) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of each layer with these units."""
        present = {place: len(indices) for place, indices in units.kept_indices(kept_U).items()}
        return {
            name: (
                present.get((f"{name}.weight", 1), times.inputs[-1]),
                present.get((f"{name}.weight", 0), times.outputs[-1]),
            )
            for name, times in self.layers.items()
        }


def latency_of(table: TimingTable, units: ChannelUnits) -> TableLatency:
    """The latency of a network whose layers the table has with channels.

    Raises:
        ConfigError: the table does not reach down to what remains if each group keeps one channel.
    """
    layers = {name: layer.channels for name, layer in table.layers.items() if layer.channels is not None}
    latency = TableLatency(layers=layers, rest=table.rest)
    least_U = torch.zeros(units.count, dtype=torch.bool)
    least_U[[group.start for group in units.groups]] = True
    for name, (inputs, outputs) in latency.counts(units, least_U).items():
        for axis, grid, least in (("inputs", layers[name].inputs, inputs), ("outputs", layers[name].outputs, outputs)):
            if grid[0] > least:
                raise ConfigError(
                    f"timings: layers.{name}.channels.{axis} must begin with at most {least}, which may remain, got {grid[0]}",
                    "measure the table again, or add this number",
                )
    return latency


def keep_within(latency: TableLatency, share: float, scores_U: Tensor, kept_U: Tensor, units: ChannelUnits) -> Tensor:
    """The kept units, bool (U,), with the highest scores in all within a share of the dense network's time.

    Within a group the highest scores are kept, of equal ones the first, and at least one. Scores below 0 are raised by the same
    amount until none is. If no choice meets the share, all units stay.
    """
    allowed = share * latency.of(units, torch.ones_like(kept_U)) * (1 + ROUNDING)
    least, most = 0.0, latency.of(units, kept_U)
    if most <= allowed:
        return kept_U
    values_U = _values(scores_U, kept_U)
    groups = [_group_options(latency, group, values_U, kept_U, units) for group in units.groups]
    fixed, best_U = most - sum(times[-1] for _, times, _ in groups), kept_U
    for _ in range(HALVINGS):
        time = (least + most) / 2
        chosen_U = _choice(groups, time - fixed, kept_U)
        if chosen_U is not None and latency.of(units, chosen_U) > allowed:
            most = time
        else:
            least, best_U = time, best_U if chosen_U is None else chosen_U
    return best_U


def _values(scores_U: Tensor, kept_U: Tensor) -> Tensor:
    """What the units are worth, above 0 where kept."""
    raised_U = scores_U.double() - min(0.0, float(scores_U[kept_U].min()))
    return raised_U + (float(raised_U[kept_U].max()) or 1.0) * VALUE_OF_ANY


def _choice(groups: Sequence[GroupOptions], time: float, kept_U: Tensor) -> Tensor | None:
    """The units with the highest values in all within a time by the present inputs; None if it is too short for any."""
    try:
        chosen = cheapest_options([times for _, times, _ in groups], [costs for _, _, costs in groups], time)
    except InfeasibleBudgetError:
        return None
    chosen_U = torch.zeros_like(kept_U)
    for (order, _, _), index in zip(groups, chosen, strict=True):
        chosen_U[order[: index + 1]] = True
    return chosen_U


def _group_options(
    latency: TableLatency, group: UnitGroup, values_U: Tensor, kept_U: Tensor, units: ChannelUnits
) -> GroupOptions:
    """The kept units of a group, best first; with 1, 2, ... of them the time of the layers that make them, and what is lost."""
    own_U = torch.zeros_like(kept_U)
    own_U[group.start : group.start + group.size] = True
    present = (own_U & kept_U).nonzero().flatten()
    order = present[values_U[present].sort(descending=True, stable=True).indices]
    kept_values = values_U[order].cumsum(0)
    counts, times = latency.counts(units, kept_U), [0.0] * len(order)
    for name, layer in latency.layers.items():
        unit_of = units.unit_of.get((f"{name}.weight", 0))
        if unit_of is None or not bool(own_U[unit_of[unit_of != STAYS]].all()):
            continue
        made_U = torch.bincount(unit_of[unit_of != STAYS], minlength=len(kept_U))
        outputs = int((unit_of == STAYS).sum()) + made_U[order].cumsum(0)
        times = [total + layer.at(counts[name][0], int(count)) for total, count in zip(times, outputs, strict=True)]
    return order, times, [float(kept_values[-1] - kept) for kept in kept_values]
