"""The selection of a trial: of single weights, or of the channels of its network."""

from __future__ import annotations

from torch import nn

from trainables.analysis.multiply_adds import multiply_adds
from trainables.channels.dependencies import find_units
from trainables.channels.implants import implantable_units
from trainables.channels.quantities import Quantity, Size, channels_of, entries_of, parameters_of, priced_entries
from trainables.channels.units import ChannelUnits
from trainables.config.trial import TrialConfig
from trainables.custom.files import NO_CUSTOM_FILES, CustomFiles
from trainables.errors import ConfigError
from trainables.models.prunable import prunable_weights
from trainables.models.spiking import without_spikes
from trainables.pruning.channel_selection import ChannelSelection, require_implantable
from trainables.pruning.latency_targets import latency_selection
from trainables.pruning.selection import LayerwiseSelection, Selection, WeightSelection

ImageShape = tuple[int, int, int]


def selection_of(
    config: TrialConfig, model: nn.Module, image_shape: ImageShape, custom_files: CustomFiles = NO_CUSTOM_FILES
) -> Selection:
    """The selection of a trial on its network, whose weights do not matter.

    Args:
        custom_files: with the timing table, if the trial uses it.

    Raises:
        ConfigError: channels of this network cannot be removed, its size cannot be counted, the timing table is of another
            network, or the target cannot be reached.
    """
    if config.is_dense:
        return WeightSelection()
    if config.uses_timings:
        return latency_selection(config, model, image_shape, custom_files.timing_table())
    if not config.prunes_channels:
        assert config.layer_sparsity != "spdy", "SPDY needs a target of latency"
        return WeightSelection() if config.layer_sparsity == "global" else LayerwiseSelection(config.layer_sparsity)
    units = find_units(without_spikes(model), image_shape, config.prunable.exclude)
    quantities: dict[str, Size] = {
        "weights": entries_of(prunable_weights(model, config.prunable.exclude), units),
        "channels": channels_of(units),
        "parameters": parameters_of(model, units),
    }
    if config.quantity == "multiply_adds":
        quantities["multiply_adds"] = _multiply_adds(model, image_shape, units)
    require_implantable(config, model, units)
    implantable = implantable_units(model, units)
    selection = ChannelSelection(units=units, quantities=quantities, image_shape=image_shape, implantable=implantable)
    selection.require_reachable(config)
    return selection


def _multiply_adds(model: nn.Module, image_shape: ImageShape, units: ChannelUnits) -> Quantity:
    weights = prunable_weights(model)
    counted = multiply_adds(model, set(weights), image_shape)
    prices = {name: float(uses) for name, uses in counted.uses.items() if uses is not None}
    if counted.total is None or len(prices) < len(weights):
        raise ConfigError(
            "target.multiply_adds: the network must have operations whose multiply-adds are known, got others",
            "write target: {parameters: ...}",
        )
    constant = counted.total - sum(prices[name] * weight.numel() for name, weight in weights.items())
    return priced_entries(weights, prices, units, constant)
