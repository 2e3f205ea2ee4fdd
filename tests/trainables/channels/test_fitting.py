"""Layers that are fitted to the channels that remain, against least squares on what the layers get and give."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.support.channel_networks import Concatenated
from trainables.channels.compensation import input_moments
from trainables.channels.dependencies import find_units
from trainables.channels.equality import mask_units, randomized, removal_error
from trainables.channels.fitting import explained_shares, fit_to_remaining, readers, require_images
from trainables.channels.units import ChannelUnits
from trainables.errors import ConfigError
from trainables.models.registry import build_model, initialize

SHAPE = (1, 8, 8)


class Plain(nn.Module):
    """A convolution that a norm layer follows, one with a bias, one with neither, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3, padding=1, bias=False)
        self.normed = nn.Conv2d(6, 5, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(5)
        self.biased = nn.Conv2d(5, 4, 3)
        self.bare = nn.Conv2d(4, 4, 1, bias=False)
        self.head = nn.Linear(4 * 9, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = torch.relu(self.norm(self.normed(torch.relu(self.first(images)))))
        maps = torch.relu(self.bare(torch.relu(self.biased(maps))))
        logits: Tensor = self.head(nn.functional.avg_pool2d(maps, 2).flatten(1))
        return logits


def images(count: int = 64) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def every_third_gone(units: ChannelUnits) -> Tensor:
    kept = torch.ones(units.count, dtype=torch.bool)
    for group in units.groups:
        kept[group.start + 1 : group.start + group.size : 3] = False
    return kept


def outputs_of(network: nn.Module, layer: str, given: Tensor) -> tuple[Tensor, Tensor]:
    """What a layer gets and gives in eval mode."""
    seen: list[tuple[Tensor, Tensor]] = []
    handle = network.get_submodule(layer).register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    with torch.no_grad():
        network.eval()(given)
    handle.remove()
    return seen[0]


def fitted() -> tuple[nn.Module, nn.Module, ChannelUnits, Tensor, float]:
    """The dense network, the masked and fitted one, units, which are kept, and the error."""
    dense = randomized(Plain()).eval()
    units = find_units(dense, SHAPE)
    kept = every_third_gone(units)
    model = copy.deepcopy(dense)
    mask_units(model, units, kept)
    error = fit_to_remaining(model, dense, units, kept, images().split(20))
    return dense, model, units, kept, error


@pytest.mark.parametrize("layer", ["biased", "bare", "head"])
def test_each_layer_is_the_least_squares_fit_on_its_inputs(layer: str) -> None:
    dense, model, units, kept, _ = fitted()
    given, wanted = outputs_of(dense, layer, images())
    module = model.get_submodule(layer)
    assert isinstance(module, nn.Conv2d | nn.Linear)
    of_input = units.unit_of[f"{layer}.weight", 1]
    if isinstance(module, nn.Conv2d):
        rows = nn.functional.unfold(given, module.kernel_size).transpose(1, 2).flatten(0, 1)
        targets = wanted.flatten(2).transpose(1, 2).flatten(0, 1)
        of_input = of_input.repeat_interleave(module.weight[0, 0].numel())
    else:
        rows, targets = given, wanted
    weight = module.weight.detach().flatten(1)
    assert not bool(weight[:, ~kept[of_input]].any())
    design = rows[:, kept[of_input]].numpy()
    if module.bias is not None:
        design = np.hstack([design, np.ones((len(design), 1))])
    expected, _, _, _ = np.linalg.lstsq(design, targets.numpy(), rcond=None)
    got = weight[:, kept[of_input]]
    if module.bias is not None:
        got = torch.cat([got, module.bias.detach()[:, None]], 1)
    assert torch.allclose(got.T, torch.from_numpy(expected), rtol=1e-4, atol=1e-5)


def test_bias_of_a_fit_lies_in_the_norm_layer_and_keeps_mean_and_variance() -> None:
    dense, model, _, kept, error = fitted()
    assert 0 < error < 1
    _, wanted = outputs_of(dense, "norm", images())
    given = torch.relu(outputs_of(dense, "first", images())[1])
    with torch.no_grad():  # on the dense network's inputs, which the fit is for
        shown = model.get_submodule("norm")(model.get_submodule("normed")(given))
    assert not torch.equal(model.get_buffer("norm.running_mean"), dense.get_buffer("norm.running_mean"))
    rows = find_units(dense, SHAPE).unit_of["normed.weight", 0]
    for channel in kept[rows].nonzero().flatten().tolist():
        assert float(shown[:, channel].mean()) == pytest.approx(float(wanted[:, channel].mean()), rel=1e-6, abs=1e-9)
        assert float(shown[:, channel].var()) == pytest.approx(float(wanted[:, channel].var()), rel=1e-5)


def test_nothing_removed_changes_nothing_and_fitting_beats_dropping() -> None:
    dense, model, units, kept, _ = fitted()
    whole = copy.deepcopy(dense)
    error = fit_to_remaining(whole, dense, units, torch.ones_like(kept), images().split(20))
    assert error < 1e-6
    wanted = dense(images())
    assert torch.allclose(whole(images()), wanted, rtol=1e-4, atol=1e-4)
    dropped = copy.deepcopy(dense)
    mask_units(dropped, units, kept)
    mask_units(model, units, kept)
    distances = [float((one(images()) - wanted).detach().square().mean()) for one in (model, dropped)]
    assert distances[0] < 0.5 * distances[1]


def test_fitted_network_can_be_made_smaller() -> None:
    _, model, units, kept, _ = fitted()
    assert removal_error(model, units, kept, images(4)) < 1e-10


def test_shares_name_copies_and_unread_variance() -> None:
    """A channel that is a copy of another explains nothing beyond it, and one that is always zero nothing at all."""
    dense = randomized(Plain()).eval()
    with torch.no_grad():
        dense.get_parameter("first.weight")[3] = dense.get_parameter("first.weight")[1]
        dense.get_parameter("first.weight")[4] = 0.0
    units = find_units(dense, SHAPE)
    shares = explained_shares(dense, units, images().split(20))
    first = next(group for group in units.groups if group.name == "first")
    of_first = shares[first.start : first.start + first.size]
    assert float(of_first[4]) < 1e-6
    assert min(float(of_first[1]), float(of_first[3])) < 1e-6 < 1e-3 < max(float(of_first[1]), float(of_first[3]))
    assert float(of_first.sum()) <= 1 + 1e-6


@pytest.mark.parametrize("name", ["convnet", "resnet20"])
def test_shares_and_fits_of_real_networks(name: str) -> None:
    dense = build_model(name, SHAPE, 10)
    initialize(dense, 0)
    dense = dense.double().eval()
    units = find_units(dense, SHAPE)
    shares = explained_shares(dense, units, images(160).split(40))
    assert bool(((shares >= 0) & shares.isfinite()).all())
    assert float(shares.sum()) <= len(readers(dense, units)) + 1e-6
    model = copy.deepcopy(dense)
    kept = every_third_gone(units)
    mask_units(model, units, kept)
    assert 0 < fit_to_remaining(model, dense, units, kept, images(160).split(40)) < 1


def test_layers_in_groups_are_left_as_they_are() -> None:
    dense = randomized(Concatenated()).eval()
    units = find_units(dense, SHAPE)
    kept = every_third_gone(units)
    model = copy.deepcopy(dense)
    mask_units(model, units, kept)
    before = model.get_parameter("grouped.weight").detach().clone()
    fit_to_remaining(model, dense, units, kept, images(200).split(40))
    assert torch.equal(model.get_parameter("grouped.weight"), before)
    assert not torch.equal(model.get_parameter("mix.weight"), dense.get_parameter("mix.weight"))


def test_too_few_samples_are_refused() -> None:
    dense = randomized(Plain()).eval()
    units = find_units(dense, SHAPE)
    with pytest.raises(ConfigError, match=r"more samples than inputs of a layer, got 10 for 36 of head"):
        fit_to_remaining(copy.deepcopy(dense), dense, units, every_third_gone(units), [images(10)])
    assert input_moments(dense, ["head"], [images(10)])["head"].count == 10
    with pytest.raises(ConfigError, match=r"more samples than inputs of a layer, got 36 for 36 of head"):
        require_images(dense.float(), units, SHAPE, 36)
    require_images(dense.float(), units, SHAPE, 37)
