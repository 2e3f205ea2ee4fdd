"""Which channels go together: against the definitions of the networks, and on layers that tie them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.support.channel_networks import Concatenated, groups_of_cifar_resnet
from trainables.channels.dependencies import find_units
from trainables.channels.units import STAYS, ChannelUnits, Place
from trainables.errors import ConfigError
from trainables.models.networks import CifarResNet


def places_of(units: ChannelUnits) -> list[set[Place]]:
    """The dimensions that each group has a part in."""
    return [
        {place for place, unit in units.unit_of.items() if bool(((unit >= group.start) & (unit < group.units.stop)).any())}
        for group in units.groups
    ]


@pytest.mark.parametrize("depth", [20, 32])
def test_groups_of_a_resnet_are_those_of_its_definition(depth: int) -> None:
    network = CifarResNet(3, 10, depth)
    units = find_units(network, (3, 16, 16))
    expected = groups_of_cifar_resnet(network)
    found = places_of(units)
    assert len(found) == len(expected)
    assert all(group in expected for group in found)
    assert units.fixed == {"head": "they are outputs of the network"}
    assert sorted(group.size for group in units.groups) == sorted([16, 32, 64] * (1 + (depth - 2) // 6))


def test_concatenated_and_grouped_channels_are_followed() -> None:
    units = find_units(Concatenated(), (1, 8, 8))
    by_name = {group.name: group for group in units.groups}
    assert {name: group.size for name, group in by_name.items()} == {"left": 6, "right": 4, "mix": 4, "grouped": 4}
    assert by_name["right"].layers == ("right", "depthwise")
    left, right = by_name["left"].start, by_name["right"].start
    both = [*range(left, left + 6), *range(right, right + 4)]
    assert units.unit_of["mix.weight", 1].tolist() == units.unit_of["norm.weight", 0].tolist() == both
    mixed = list(by_name["mix"].units)
    assert units.unit_of["mix.weight", 0].tolist() == 2 * mixed  # channels i and i + 4 feed the same place of the two groups
    assert units.unit_of["grouped.weight", 1].tolist() == mixed
    kept = list(by_name["grouped"].units)
    assert units.unit_of["grouped.weight", 0].tolist() == 2 * kept
    assert units.unit_of["head.weight", 1].tolist() == [unit for unit in 2 * kept for _ in range(4)]  # flattened 2 x 2 maps


def test_excluded_layers_keep_their_channels_and_read_fewer() -> None:
    network = CifarResNet(1, 10, 20)
    units = find_units(network, (1, 8, 8), exclude=("blocks.0.conv1",))
    assert units.fixed["blocks.0.conv1"] == "prunable.exclude keeps blocks.0.conv1 whole"
    assert ("blocks.0.conv1.weight", 0) not in units.unit_of
    assert STAYS not in units.unit_of["blocks.0.conv1.weight", 1]
    whole_stream = find_units(network, (1, 8, 8), exclude=("blocks.1.conv2",))
    assert whole_stream.fixed["conv"] == "prunable.exclude keeps blocks.1.conv2 whole"


def test_frozen_weights_are_traced_and_the_network_stays_as_it_was() -> None:
    network = CifarResNet(1, 10, 20).requires_grad_(False).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert len(find_units(network, (1, 8, 8)).groups) == 12
    assert network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class Deciding(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise ValueError("an image must have 5 channels")


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            nn.Sequential(nn.Flatten(), nn.Linear(64, 10)),
            r"to remove, got none \(1: they are outputs of the network\)",
        ),
        (
            nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(144, 10)),
            r"none \(0: 1 \(GroupNorm\) cannot lose channels, 3: they are outputs of the network\)",
        ),
        (Deciding(), "layers can be followed, got an image must have 5 channels"),
    ],
)
def test_networks_without_removable_channels_are_refused(network: nn.Module, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_units(network, (1, 8, 8))
