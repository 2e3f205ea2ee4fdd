"""The selection of a trial with a target of latency, by a timing table that fits its network and reaches the target."""

from __future__ import annotations

from torch import nn

from trainables.channels.dependencies import find_units
from trainables.channels.implants import implantable_units
from trainables.config.trial import TrialConfig
from trainables.custom.timing_table import TimingTable
from trainables.models.prunable import prunable_weights
from trainables.pruning.channel_latency import latency_of
from trainables.pruning.channel_selection import ChannelSelection
from trainables.pruning.spdy_selection import SpdySelection
from trainables.pruning.timed_layers import timed_layers


def latency_selection(
    config: TrialConfig, model: nn.Module, image_shape: tuple[int, int, int], table: TimingTable
) -> SpdySelection | ChannelSelection:
    """The choice of weights or channels within the target.

    Raises:
        ConfigError: the table is of another network or misses what the trial needs, channels of this network cannot be removed,
            or no choice is so fast.
    """
    shapes = {name.removesuffix(".weight"): tuple(weight.shape) for name, weight in prunable_weights(model).items()}
    prunable = list(prunable_weights(model, config.prunable.exclude))
    table.require_fitting(config, image_shape, shapes, [name.removesuffix(".weight") for name in prunable])
    selection: SpdySelection | ChannelSelection
    if config.prunes_channels:
        units = find_units(model, image_shape, config.prunable.exclude)
        selection = ChannelSelection(
            units=units,
            quantities={"latency": latency_of(table, units)},
            image_shape=image_shape,
            implantable=implantable_units(model, units),
        )
    else:
        selection = SpdySelection(timed=timed_layers(table, prunable))
    selection.require_reachable(config)
    return selection
