"""The layers of a trial with their times by the timing table: what each may keep, and what no choice changes.

Times are in seconds, by the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from trainables.config.counts import kept_count
from trainables.custom.timing_table import TimingTable

LATENCY_METRIC = "prune/latency_by_table"  # share of the dense network's time that remains


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerOptions:
    """What a layer may keep, the dense layer first.

    Attributes:
        counts: weights, falling; at least one.
        times: with so many.
    """

    counts: tuple[int, ...]
    times: tuple[float, ...]

    @property
    def errors(self) -> tuple[float, ...]:
        """SPDY's prior of the error: (j / (n - 1))^2 for the j-th of n options, in every layer the same (arXiv:2201.13096)."""
        return tuple((rank / max(1, len(self.counts) - 1)) ** 2 for rank in range(len(self.counts)))


@dataclass(frozen=True, kw_only=True, slots=True)
class TimedLayers:
    """The choices of a network.

    Attributes:
        layers: options of prunable layers, by the name of the weight.
        fixed: time of the rest, of which layers that stay dense are a part.
        whole: time of the dense network.
    """

    layers: Mapping[str, LayerOptions]
    fixed: float
    whole: float

    def time(self, counts: Mapping[str, int]) -> float:
        """Of the network whose layers keep these numbers of weights, each that of an option."""
        return self.fixed + sum(layer.times[layer.counts.index(counts[name])] for name, layer in self.layers.items())


def timed_layers(table: TimingTable, prunable: Sequence[str]) -> TimedLayers:
    """The choices for a table that fits the network; options are the table's sparsities, and none is interpolated.

    Args:
        prunable: names of the weights that may be pruned.
    """
    layers = {name: _options(table, name.removesuffix(".weight")) for name in prunable}
    fixed = table.dense - sum(layer.times[0] for layer in layers.values())
    return TimedLayers(layers=layers, fixed=max(0.0, fixed), whole=table.dense)


def _options(table: TimingTable, layer: str) -> LayerOptions:
    """The options of a layer; of sparsities that keep equally many weights the fastest is one."""
    times = table.layers[layer]
    size = prod(times.shape)
    options = {size: times.dense}
    for sparsity, time in zip(times.sparsities, times.times, strict=True):
        if (count := max(1, kept_count(sparsity, size))) < size:
            options[count] = min(time, options.get(count, time))
    return LayerOptions(counts=tuple(options), times=tuple(options.values()))
