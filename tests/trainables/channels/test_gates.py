"""Gates: their straight-through gradient, a closed gate as a removed channel, and no trace of them in the network."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.support.channel_networks import Concatenated, with_integers
from trainables.channels.dependencies import find_units
from trainables.channels.gates import CLIP, ChannelGates, straight_through
from trainables.channels.removal import remove_units
from trainables.channels.units import ChannelUnits
from trainables.models.registry import build_model, initialize

SHAPE = (1, 8, 8)
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "flattened": lambda: build_model("convnet", SHAPE, 10),
    "residual": lambda: build_model("resnet20", SHAPE, 10),
    "branches": Concatenated,
    "linear": lambda: build_model("lenet300", SHAPE, 10),
}


def gates_of(network: nn.Module, units: ChannelUnits, seed: int = 0) -> ChannelGates:
    return ChannelGates(network, units, 4, torch.Generator().manual_seed(seed))


def whole_numbers(count: int) -> Tensor:
    return torch.randint(-2, 3, (count, *SHAPE), generator=torch.Generator().manual_seed(0)).double()


def unanimous(gates: ChannelGates, kept: Tensor) -> None:
    """Makes the gates open for the kept units alone, whatever the image."""
    with torch.no_grad():
        for group, layer in zip(gates.units.groups, gates.layers, strict=True):
            assert isinstance(layer, nn.Sequential)
            layer[2].weight.zero_()  # type: ignore[operator]
            layer[2].bias.copy_(kept[list(group.units)].double() - 0.5)  # type: ignore[operator]


def test_gradient_goes_straight_through_inside_the_clip_range() -> None:
    z = torch.tensor([-1.5, -0.99, -0.2, 0.0, 0.3, 0.99, 2.0], dtype=torch.float64, requires_grad=True)
    upstream = torch.arange(1.0, 8.0, dtype=torch.float64)
    gates = straight_through(z)
    assert gates.tolist() == [0, 0, 0, 0, 1, 1, 1]
    gates.backward(upstream)
    assert z.grad is not None
    assert z.grad.tolist() == [
        value if abs(place) < CLIP else 0 for value, place in zip(upstream.tolist(), z.tolist(), strict=True)
    ]


@pytest.mark.parametrize("name", NETWORKS)
def test_unanimous_gates_are_the_network_without_the_closed_channels(name: str) -> None:
    network = with_integers(NETWORKS[name]()).double()
    units = find_units(network, SHAPE)
    kept = torch.rand(units.count, generator=torch.Generator().manual_seed(1)) < 0.6
    for group in units.groups:
        kept[group.start] = True
    smaller, images = copy.deepcopy(network), whole_numbers(3)
    remove_units(smaller, units, kept)
    gates = gates_of(network, units)
    unanimous(gates, kept)
    before = network(images)
    gates.install(network)
    gated = network(images)
    assert torch.equal(gated, smaller(images))
    assert not torch.equal(gated, before)
    assert gates.means().tolist() == kept.double().tolist()
    gates.remove()
    assert torch.equal(network(images), before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_a_closed_gate_gets_a_gradient_from_the_loss() -> None:
    network = build_model("convnet", SHAPE, 10)
    initialize(network, 0)
    units = find_units(network, SHAPE)
    gates = gates_of(network, units)
    kept = torch.ones(units.count, dtype=torch.bool)
    kept[::3] = False
    unanimous(gates, kept)
    gates.install(network)
    network.eval()(whole_numbers(4).float()).square().sum().backward()
    slopes = torch.cat([layer[2].bias.grad for layer in gates.layers])  # type: ignore[index]
    assert bool(slopes.isfinite().all())
    assert float((slopes[~kept] != 0).double().mean()) > 0.5


def test_counts_over_images_are_those_of_single_images() -> None:
    network = NETWORKS["residual"]().eval()
    initialize(network, 0)
    units, images = find_units(network, SHAPE), whole_numbers(5).float()
    gates = gates_of(network, units)
    with torch.no_grad():
        for layer in gates.layers:
            layer[2].bias.zero_()  # type: ignore[index]
    gates.install(network)
    rows = []
    for image in images:
        network(image[None])
        rows.append(gates.means().tolist())
    open_units, mean_z, count = gates.over(lambda: [network(part) for part in images.split(2)])
    assert count == 5
    assert open_units.tolist() == torch.tensor(rows).sum(0).tolist()
    assert 0 < float(open_units.mean()) < 5
    assert bool(((mean_z > 0) | (open_units < 5)).all())


def test_gates_depend_on_their_generator_alone_and_leave_random_numbers() -> None:
    network = NETWORKS["branches"]()
    units, state = find_units(network, SHAPE), torch.get_rng_state()
    first, again, other = (gates_of(network, units, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["layers.0.0.weight"], other["layers.0.0.weight"])
