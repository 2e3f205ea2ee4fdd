"""Removed equals masked: on every network of the project, on the zoo of users' networks, and refused where it does not."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from tests.support.channel_networks import Concatenated, PaddedResidual, with_integers
from tests.support.network_zoo import ZOO
from trainables.analysis.multiply_adds import multiply_adds
from trainables.channels.dependencies import find_units
from trainables.channels.equality import check_removal, mask_units, randomized, removal_error, require_equality
from trainables.channels.quantities import channels_of, entries_of, parameters_of, priced_entries
from trainables.channels.removal import remove_units
from trainables.channels.resizing import resize
from trainables.channels.units import ChannelUnits
from trainables.errors import ConfigError
from trainables.models.prunable import prunable_weights
from trainables.models.registry import build_model, initialize
from trainables.models.table import NETWORKS

SMALL = {"convnet": 8, "lenet300": 8, "resnet20": 8, "resnet32": 8, "resnet56": 8}  # sides; 32 for the others


def kept_at_random(units: ChannelUnits, seed: int) -> torch.Tensor:
    """About half of each group, at least one."""
    generator = torch.Generator().manual_seed(seed)
    kept = torch.rand(units.count, generator=generator) < 0.5
    for group in units.groups:
        kept[group.start + int(torch.randint(group.size, (), generator=generator))] = True
    return kept


@pytest.mark.parametrize("name", NETWORKS)
def test_removed_equals_masked_on_built_in_networks(name: str) -> None:
    side = SMALL.get(name, 32)
    shape = (3, side, side)
    network = build_model(name, shape, 10)
    initialize(network, 0)
    units = find_units(network, shape)
    kept = kept_at_random(units, seed=1)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    random = randomized(network)
    assert removal_error(random, units, kept, images) < 1e-12
    assert removal_error(random, units, kept, images.float()) < 1e-4
    check_removal(network, units, shape)
    counted = multiply_adds(network, set(prunable_weights(network)), shape)
    uses = {key: float(value or 0) for key, value in counted.uses.items()}
    sizes = {
        "weights": entries_of(prunable_weights(network), units),
        "parameters": parameters_of(network, units),
        "multiply_adds": priced_entries(prunable_weights(network), uses, units),
    }
    smaller = copy.deepcopy(network)
    remove_units(smaller, units, kept)
    expected = {
        "weights": sum(weight.numel() for weight in prunable_weights(smaller).values()),
        "parameters": sum(parameter.numel() for parameter in smaller.parameters()),
        "multiply_adds": multiply_adds(smaller, set(), shape).total,
    }
    assert {key: size.of(units, kept) for key, size in sizes.items()} == expected


@pytest.mark.parametrize("make", [Concatenated, lambda: build_model("resnet20", (1, 8, 8), 10)], ids=["concat", "resnet20"])
def test_whole_numbers_give_equal_bits(make: Callable[[], nn.Module]) -> None:
    network = with_integers(make())
    units = find_units(network, (1, 8, 8))
    images = torch.randint(-2, 3, (3, 1, 8, 8), generator=torch.Generator().manual_seed(0)).double()
    network = network.double()
    for seed in range(3):
        assert removal_error(network, units, kept_at_random(units, seed), images) == 0.0


REFUSED = {
    "torchvision_shufflenet_v2_x0_5": "can be followed",  # torch-pruning does not follow its shuffled channels
    "timm_like_vit": "blocks.0.qkv",  # heads are in the shape of a view
    "standardized": "are off by",  # a norm over a filter's inputs, which a mask leaves in
    "checkpointed_reentrant": "fails",
    "with_weight_norm": "can be followed",
    "with_weight_norm_parametrization": "fails",
    "with_spectral_norm": "fails",
    "pruned_by_torch": "can be followed",
    "mixture": "can be followed",
}
NOTHING = {"lstm", "gru", "rnn", "multihead_attention", "one_dimensional", "three_dimensional", "tied", "layer_norm"}
NOTHING |= {"unused_layer", "buffers", "scripted", "drawn_by_numpy", "functional_linear", "bilinear"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in ZOO if name != "torchvision_maxvit_small"])  # which takes half a minute
def test_removed_equals_masked_on_the_zoo_or_is_refused(name: str) -> None:
    side = {"torchvision_inception_v3": 75, "torchvision_googlenet": 64}.get(name, 32 if "torchvision" in name else 8)
    shape = (3 if "torchvision" in name else 1, side, side)
    network = ZOO[name](shape, 10)
    if name in REFUSED or name in NOTHING:
        with pytest.raises(ConfigError, match=REFUSED.get(name, "channels to remove, got none")):
            check_removal(network, find_units(network, shape), shape)
        return
    check_removal(network, find_units(network, shape), shape)


def test_padded_shortcut_is_refused_with_its_layers() -> None:
    network = PaddedResidual()
    units = find_units(network, (1, 8, 8))
    with pytest.raises(ConfigError, match=r"prunable.exclude: \[conv") as raised:
        check_removal(network, units, (1, 8, 8))
    (exclude,) = [str(raised.value).partition("exclude: [")[2].partition("]")[0]]
    units = find_units(network, (1, 8, 8), exclude=tuple(exclude.split(", ")))
    check_removal(network, units, (1, 8, 8))
    assert [group.name for group in units.groups] == ["conv1"]


def test_masks_without_norm_layers_are_another_function() -> None:
    network = randomized(build_model("resnet20", (1, 8, 8), 10)).eval()
    units = find_units(network, (1, 8, 8))
    kept = kept_at_random(units, seed=0)
    images = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    filters, everything, smaller = (copy.deepcopy(network) for _ in range(3))
    convolutions = {place: unit for place, unit in units.unit_of.items() if "norm" not in place[0] and place[1] == 0}
    mask_units(filters, ChannelUnits(groups=units.groups, unit_of=convolutions, fixed={}), kept)
    mask_units(everything, units, kept)
    remove_units(smaller, units, kept)
    with torch.inference_mode():
        wrong, masked, removed = (one(images) for one in (filters, everything, smaller))
    assert (masked - removed).abs().max() < 1e-12 * masked.abs().max()
    assert (wrong - removed).abs().max() > 1e-3 * masked.abs().max()


def test_trained_network_that_computes_otherwise_is_refused() -> None:
    network = PaddedResidual()
    units = find_units(network, (1, 8, 8))
    kept = torch.ones(units.count, dtype=torch.bool)
    kept[units.groups[0].start + 3] = False
    with pytest.raises(ConfigError, match="granularity: channel must be able to remove channels, but the smaller network"):
        require_equality(randomized(network), units, (1, 8, 8), kept)


def test_published_sizes() -> None:
    """Half of all channels: figures of torch-pruning's README for ResNet-18, and ResNet-20's with 1x1 shortcuts."""
    for name, side, classes, whole, half in (
        ("resnet18", 224, 1000, 11_689_512, 3_055_880),
        ("resnet20", 32, 10, 272_474, 68_786),
    ):
        network = build_model(name, (3, side, side), classes)
        units = find_units(network, (3, side, side))
        assert len(units.groups) == 12
        every_second = torch.arange(units.count) % 2 == 0
        parameters = parameters_of(network, units)
        assert parameters.of(units, torch.ones(units.count, dtype=torch.bool)) == whole
        assert parameters.of(units, every_second) == half
        channels = channels_of(units)
        assert channels.of(units, every_second) / channels.of(units, torch.ones(units.count, dtype=torch.bool)) == 0.5


def test_state_with_more_channels_is_refused() -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    wider = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2))
    with pytest.raises(ValueError, match=r"0.weight must have at most the shape \(3, 4\), got \(5, 4\)"):
        resize(network, wider.state_dict())
    with pytest.raises(ValueError, match="its tensors are not those of Sequential"):
        resize(network, nn.Linear(4, 3).state_dict())
