"""Channels within a latency, by brute force over all numbers of channels, and by the table at the final numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.support.timings import convnet_record, convnet_table
from tests.support.trials import tiny_config
from trainables.channels.dependencies import find_units
from trainables.channels.units import ChannelUnits
from trainables.config.trial import TargetConfig
from trainables.custom.timing_table import parse_timing_table
from trainables.errors import ConfigError
from trainables.models.prunable import prunable_weights
from trainables.models.registry import build_model
from trainables.pruning.channel_latency import TableLatency, keep_within, latency_of
from trainables.pruning.channel_selection import ChannelSelection
from trainables.pruning.masks import full_masks
from trainables.pruning.timed_layers import LATENCY_METRIC

IMAGE = (1, 8, 8)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    model = build_model("convnet", IMAGE, 10)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(1)
    return model


@pytest.fixture(scope="module")
def units(network: nn.Module) -> ChannelUnits:
    return find_units(network, IMAGE)


def drawn(count: int, seed: int) -> Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def all_of(units: ChannelUnits) -> Tensor:
    return torch.ones(units.count, dtype=torch.bool)


def counts_of(units: ChannelUnits, kept_U: Tensor) -> list[int]:
    return [int(kept_U[group.start : group.start + group.size].sum()) for group in units.groups]


def best_by_brute_force(latency: TableLatency, units: ChannelUnits, scores_U: Tensor, allowed: float) -> float:
    """The highest sum of scores of any numbers of channels whose time, with all inputs, is within the time."""
    sums = [scores_U[list(group.units)].sort(descending=True).values.cumsum(0).numpy() for group in units.groups]
    times = []
    for group in units.groups:
        layer = latency.layers[group.name]
        times.append(np.array([layer.at(layer.inputs[-1], made) for made in range(1, group.size + 1)]))
    fixed = latency.rest + latency.layers["head"].at(128, 10)
    total = fixed + times[0][:, None, None] + times[1][None, :, None] + times[2][None, None, :]
    value = sums[0][:, None, None] + sums[1][None, :, None] + sums[2][None, None, :]
    return float(value[total <= allowed].max())


@pytest.mark.parametrize("share", [0.5, 0.7, 0.9])
def test_channels_have_the_highest_scores_of_all_numbers(units: ChannelUnits, share: float) -> None:
    latency = latency_of(convnet_table(), units)
    whole = latency.of(units, all_of(units))
    assert whole == pytest.approx(convnet_table().dense)
    for seed in range(3):
        scores_U = drawn(units.count, seed)
        kept_U = keep_within(latency, share, scores_U, all_of(units), units)
        assert latency.of(units, kept_U) <= share * whole
        best = best_by_brute_force(latency, units, scores_U, share * whole)
        assert float(scores_U[kept_U].sum()) == pytest.approx(best, rel=2e-3)  # rounding up may leave a channel out
        for group in units.groups:  # better channels before worse ones
            own = kept_U[group.start : group.start + group.size]
            scores = scores_U[group.start : group.start + group.size]
            assert own.all() or scores[own].min() > scores[~own].max()


def test_equal_scores_keep_as_much_as_positive_ones(units: ChannelUnits) -> None:
    latency = latency_of(convnet_table(), units)
    kept = {}
    for value in (-2.0, 0.0, 3.0):
        scores_U = torch.full((units.count,), value, dtype=torch.float64)
        kept[value] = counts_of(units, keep_within(latency, 0.7, scores_U, all_of(units), units))
    assert kept[-2.0] == kept[0.0] == kept[3.0]
    assert sum(kept[3.0]) > 0.5 * units.count
    below_U = drawn(units.count, 0) - 5
    raised_U = below_U - below_U.min()
    below, raised = (keep_within(latency, 0.7, one, all_of(units), units) for one in (below_U, raised_U))
    assert torch.equal(below, raised)


def test_targets_that_one_step_cannot_reach_are_met_in_several(units: ChannelUnits) -> None:
    latency = latency_of(convnet_table(), units)
    whole = latency.of(units, all_of(units))
    scores_U = drawn(units.count, 0)
    least = latency.of(units, keep_within(latency, 1e-9, scores_U, all_of(units), units))
    assert all(count == 1 for count in counts_of(units, keep_within(latency, 1e-9, scores_U, all_of(units), units)))
    share = 1.05 * least / whole
    kept_U = keep_within(latency, share, scores_U, all_of(units), units)
    assert latency.of(units, kept_U) <= share * whole * (1 + 1e-9)


def selection_with(network: nn.Module, units: ChannelUnits, record: dict[str, object]) -> ChannelSelection:
    latency = latency_of(parse_timing_table(json.dumps(record).encode()), units)
    return ChannelSelection(
        units=units, quantities={"latency": latency}, image_shape=IMAGE, implantable=torch.zeros(units.count, dtype=torch.bool)
    )


def test_rounds_meet_a_table_on_which_fewer_channels_may_be_slower(network: nn.Module, units: ChannelUnits) -> None:
    record = convnet_record()
    for name in ("conv1", "conv2", "conv3"):
        times = record["layers"][name]["channels"]["times"]
        for row in times:
            row[1] = 1.3 * row[2]  # as measured on processors that like multiples of 8
    selection = selection_with(network, units, record)
    config = tiny_config(
        method="snip", granularity="channel", target=TargetConfig(latency=0.4), sparsity=0.6, prune_iterations=4
    )
    masks = full_masks(prunable_weights(network))
    scores = torch.rand(sum(mask.numel() for mask in masks.values()), generator=torch.Generator().manual_seed(0))
    for round_ in range(1, 5):
        surviving = torch.cat([mask.flatten() for mask in masks.values()])
        smaller = selection.select(scores[surviving], masks, config, round_)
        assert all(bool((smaller[name] <= mask).all()) for name, mask in masks.items())
        assert selection.metrics(smaller, config)[LATENCY_METRIC] <= 0.4 ** (round_ / 4) * (1 + 1e-8)
        masks = smaller


def test_share_that_one_channel_in_each_layer_exceeds_is_refused(network: nn.Module, units: ChannelUnits) -> None:
    config = tiny_config(granularity="channel", target=TargetConfig(latency=0.01), sparsity=0.99)
    with pytest.raises(ConfigError, match=r"target\.latency: one channel in each layer must stay, which is 0\.\d+ of the lat"):
        selection_with(network, units, convnet_record()).require_reachable(config)


def test_grid_must_reach_down_to_one_channel(units: ChannelUnits) -> None:
    record = convnet_record()
    channels = record["layers"]["conv2"]["channels"]
    channels["inputs"], channels["times"] = channels["inputs"][1:], channels["times"][1:]
    with pytest.raises(
        ConfigError, match=r"layers\.conv2\.channels\.inputs must begin with at most 1, which may remain, got 4"
    ):
        latency_of(parse_timing_table(json.dumps(record).encode()), units)
