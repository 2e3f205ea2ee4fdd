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


def best_by_brute_force(latency: TableLatency, units: ChannelUnits, scores_U: Tensor, allowed: float) -> tuple[float, float]:
    """The highest sums of scores of any numbers of channels within a time: with all inputs, and with those that remain."""
    sums = [scores_U[list(group.units)].sort(descending=True).values.cumsum(0).numpy() for group in units.groups]
    value = sums[0][:, None, None] + sums[1][None, :, None] + sums[2][None, None, :]
    layers = [latency.layers[group.name] for group in units.groups]
    sizes = [range(1, group.size + 1) for group in units.groups]
    second, third = (
        np.array([[layer.at(read, made) for made in own] for read in before])
        for layer, before, own in zip(layers[1:], sizes[:-1], sizes[1:], strict=True)
    )
    first = np.array([layers[0].at(1, made) for made in sizes[0]])[:, None, None]
    head = np.array([latency.layers["head"].at(4 * read, 10) for read in sizes[2]])[None, None, :]
    present = latency.rest + first + second[-1][None, :, None] + third[-1][None, None, :] + head[:, :, -1:]
    own = latency.rest + first + second[:, :, None] + third[None, :, :] + head
    return float(value[present <= allowed].max()), float(value[own <= allowed].max())


@pytest.mark.parametrize("share", [0.5, 0.7, 0.9])
def test_channels_have_the_highest_scores_of_all_numbers(units: ChannelUnits, share: float) -> None:
    latency = latency_of(convnet_table(), units)
    whole = latency.of(units, all_of(units))
    assert whole == pytest.approx(convnet_table().dense)
    for seed in range(2):
        scores_U = drawn(units.count, seed)
        kept_U = keep_within(latency, share, scores_U, all_of(units), units)
        assert latency.of(units, kept_U) <= share * whole
        of_one_knapsack, best = best_by_brute_force(latency, units, scores_U, share * whole)
        assert of_one_knapsack < float(scores_U[kept_U].sum()) <= best
        assert float(scores_U[kept_U].sum()) > 0.9 * best  # which a knapsack by present inputs does not find
        for group in units.groups:  # better channels before worse ones
            own = kept_U[group.start : group.start + group.size]
            scores = scores_U[group.start : group.start + group.size]
            assert own.all() or scores[own].min() > scores[~own].max()


def test_equal_scores_keep_as_much_whatever_they_are(units: ChannelUnits) -> None:
    latency = latency_of(convnet_table(), units)
    kept = [
        int(keep_within(latency, 0.7, torch.full((units.count,), value), all_of(units), units).sum())
        for value in (-2.0, 0.0, 3.0)
    ]
    assert kept == [kept[0]] * 3
    assert kept[0] > 0.7 * units.count
    below_U = drawn(units.count, 0) - 5
    below, raised = (keep_within(latency, 0.7, one, all_of(units), units) for one in (below_U, below_U - below_U.min()))
    assert torch.equal(below, raised)


def test_targets_that_hardly_can_be_reached_are_met(units: ChannelUnits) -> None:
    latency = latency_of(convnet_table(), units)
    whole = latency.of(units, all_of(units))
    least_U = torch.zeros(units.count, dtype=torch.bool)
    least_U[[group.start for group in units.groups]] = True
    share = 1.05 * latency.of(units, least_U) / whole
    kept_U = keep_within(latency, share, drawn(units.count, 0), all_of(units), units)
    assert latency.of(units, kept_U) <= share * whole
    assert all(count >= 1 for count in counts_of(units, kept_U))
    assert torch.equal(keep_within(latency, 0.5 * share, drawn(units.count, 0), all_of(units), units), all_of(units))


def test_table_gives_the_same_numbers_on_every_machine(units: ChannelUnits) -> None:
    scores_U = (torch.arange(units.count) * 37 % units.count).double()
    kept = {
        share: keep_within(latency_of(convnet_table(), units), share, scores_U, all_of(units), units) for share in (0.3, 0.6)
    }
    assert {share: counts_of(units, kept_U) for share, kept_U in kept.items()} == {0.3: [13, 19, 6], 0.6: [14, 27, 18]}


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
