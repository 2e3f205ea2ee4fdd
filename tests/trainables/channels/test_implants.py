"""Implants: a centre tap is a 1x1 convolution, which channels can be one, and what they count in every size."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d

from tests.support.channel_networks import Concatenated
from trainables.analysis.model_stats import model_stats
from trainables.analysis.multiply_adds import multiply_adds
from trainables.channels.dependencies import find_units
from trainables.channels.implants import implant_masks, implantable_units, implants_in
from trainables.channels.quantities import channels_of, entries_of, priced_entries
from trainables.channels.units import STAYS
from trainables.models.prunable import prunable_weights
from trainables.models.registry import build_model
from trainables.pruning.masks import full_masks, num_kept

SHAPE = (1, 8, 8)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [7, 8])
def test_centre_taps_are_a_1x1_convolution_of_the_same_stride_bit_for_bit(stride: int, side: int) -> None:
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Conv2d(5, 6, 3, stride=stride, padding=1, bias=False), nn.Flatten(), nn.LazyLinear(10))
    network(torch.zeros(1, 5, side, side))
    units = find_units(network, (5, side, side))
    masks = implant_masks(full_masks(prunable_weights(network)), units, torch.ones(units.count, dtype=torch.bool))
    weight = torch.randn(6, 5, 3, 3, generator=generator)
    images = torch.randn(2, 5, side, side, generator=generator)
    small = conv2d(images, weight[:, :, 1:2, 1:2].contiguous(), stride=stride)
    assert torch.equal(conv2d(images, weight * masks["0.weight"], stride=stride, padding=1), small)
    assert int(masks["0.weight"].sum()) == 6 * 5 == masks["0.weight"].numel() // 9


def test_only_channels_of_wide_convolutions_can_be_implants() -> None:
    network = build_model("resnet20", SHAPE, 10)
    units = find_units(network, SHAPE)
    able = implantable_units(network, units)
    by_group = {group.name: bool(able[group.start]) for group in units.groups}
    # Streams after a 1x1 shortcut have none.
    without = {"blocks.3.conv2", "blocks.6.conv2"}
    assert {name for name, can in by_group.items() if not can} == without
    assert {"conv", "blocks.0.conv1", "blocks.8.conv1"} <= by_group.keys() - without
    mixed = Concatenated()
    units = find_units(mixed, SHAPE)
    able = implantable_units(mixed, units)
    assert {group.name: bool(able[group.start]) for group in units.groups} == {
        "left": True,
        "right": True,  # with a depthwise convolution
        "mix": False,  # 1x1
        "grouped": True,
    }


@pytest.mark.parametrize("change", [{"kernel_size": 4}, {"padding": 0}, {"kernel_size": 1, "padding": 0}])
def test_other_convolutions_have_no_implants(change: dict[str, int]) -> None:
    layer = nn.Conv2d(1, 4, **{"kernel_size": 3, "padding": 1} | change)  # type: ignore[arg-type]
    network = nn.Sequential(layer, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    units = find_units(network, SHAPE)
    assert units.count == 4
    assert not bool(implantable_units(network, units).any())


def test_masks_have_the_centres_alone_and_say_which_units_are_implants() -> None:
    network = Concatenated()
    units, weights = find_units(network, SHAPE), prunable_weights(network)
    able = implantable_units(network, units)
    implants = able & (torch.rand(units.count, generator=torch.Generator().manual_seed(1)) < 0.5)
    masks = implant_masks(full_masks(weights), units, implants)
    for name, mask in masks.items():
        for row in range(len(mask)):
            unit = int(units.unit_of[name, 0][row]) if (name, 0) in units.unit_of else STAYS
            expected = torch.ones_like(mask[row])
            if unit != STAYS and implants[unit]:
                expected = torch.zeros_like(mask[row])
                expected[:, 1, 1] = True
            assert torch.equal(mask[row], expected), (name, row)
    assert 0 < int(implants.sum()) < int(able.sum())
    assert torch.equal(implants_in(masks, units, able), implants)


@pytest.mark.parametrize("name", ["convnet", "resnet20"])
def test_an_implant_counts_what_is_left_of_its_filters(name: str) -> None:
    network = build_model(name, SHAPE, 10)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(1.0)
    units, weights = find_units(network, SHAPE), prunable_weights(network)
    draw = torch.Generator().manual_seed(2)
    kept = torch.rand(units.count, generator=draw) < 0.7
    implants = kept & implantable_units(network, units) & (torch.rand(units.count, generator=draw) < 0.5)
    masks = {key: units.mask(key, weight.shape, kept) for key, weight in weights.items()}
    masks = implant_masks(masks, units, implants)
    stats = model_stats(network, masks, SHAPE)
    uses = {key: float(value or 0) for key, value in multiply_adds(network, set(weights), SHAPE).uses.items()}
    assert entries_of(weights, units).of(units, kept, implants) == num_kept(masks)
    assert priced_entries(weights, uses, units).of(units, kept, implants) == stats.kept_flops
    assert channels_of(units).of(units, kept, implants) == channels_of(units).of(units, kept)
