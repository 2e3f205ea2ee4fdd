"""Networks by name: their sizes, their initialisation, and which weights can be pruned."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from trainables.failures import SettingError
from trainables.models import MODELS, build_model, initialize, prunable_weights


def initialized(name: str, seed: int = 0, channels: int = 3, side: int = 32) -> nn.Module:
    model = build_model(name, (channels, side, side), 10)
    initialize(model, seed)
    return model


def test_resnet20_has_the_weights_that_its_definition_counts() -> None:
    first = 3 * 16 * 9
    stages = 0
    for width_in, width in ((16, 16), (16, 32), (32, 64)):
        stages += width_in * width * 9 + 5 * width * width * 9  # three blocks of two 3x3 convolutions
        stages += width_in * width if width_in != width else 0  # option B: a 1x1 convolution where the width changes
    head = 64 * 10
    model = initialized("resnet20")
    weights = prunable_weights(model)
    assert sum(weight.numel() for weight in weights.values()) == first + stages + head == 270_896
    assert len(weights) == 1 + 18 + 2 + 1
    norms = 2 * (7 * 16 + 7 * 32 + 7 * 64)  # scale and shift; one shortcut norm at 32 and at 64, the first one at 16
    assert sum(parameter.numel() for parameter in model.parameters()) == 270_896 + norms + 10


def test_convnet_has_the_weights_that_its_docstring_tells() -> None:
    weights = prunable_weights(initialized("convnet", channels=1, side=8))
    assert sum(weight.numel() for weight in weights.values()) == 9 * (16 + 16 * 32 + 32 * 32) + 128 * 10 == 15_248


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("channels", "side"), [(1, 8), (1, 28), (3, 32)])
def test_networks_take_every_image_size_that_is_offered(name: str, channels: int, side: int) -> None:
    model = initialized(name, channels=channels, side=side)
    assert model(torch.zeros(2, channels, side, side)).shape == (2, 10)


@pytest.mark.parametrize("name", MODELS)
def test_initialisation_follows_from_the_seed_alone(name: str) -> None:
    torch.manual_seed(1)
    first = initialized(name).state_dict()
    torch.manual_seed(2)
    torch.rand(100)
    before = torch.get_rng_state()
    second = initialized(name).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(tensor, second[key]) for key, tensor in first.items())
    other = initialized(name, seed=1).state_dict()
    assert not torch.equal(first["head.weight"], other["head.weight"])


@pytest.mark.parametrize("name", MODELS)
def test_every_value_is_initialised(name: str) -> None:
    model = build_model(name, (3, 32, 32), 10)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(77)  # a value that initialisation never draws
    initialize(model, 0)
    for key, tensor in model.state_dict().items():
        assert not (tensor == 77).any(), key


@pytest.mark.parametrize("name", MODELS)
def test_weights_are_kaiming_normal_by_fan_in_and_the_rest_is_the_identity(name: str) -> None:
    model = initialized(name)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            values = module.weight.detach().double().flatten()
            std = math.sqrt(2 / module.weight[0].numel())
            # Five standard errors of a standard deviation and of a mean.
            assert abs(float(values.std()) / std - 1) < 5 / math.sqrt(2 * len(values))
            assert abs(float(values.mean())) < 5 * std / math.sqrt(len(values))
            assert module.bias is None or not module.bias.any()
        elif isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            assert bool((module.weight == 1).all() and (module.running_var == 1).all())
            assert not module.bias.any()
            assert not module.running_mean.any()


def test_weights_come_in_the_order_of_the_network_without_biases_and_norms() -> None:
    assert list(prunable_weights(initialized("convnet"))) == ["conv1.weight", "conv2.weight", "conv3.weight", "head.weight"]
    names = list(prunable_weights(initialized("resnet20")))
    assert names[:2] == ["conv.weight", "blocks.0.conv1.weight"]
    assert names[-1] == "head.weight"
    assert "blocks.3.shortcut.0.weight" in names


def test_excluded_layers_are_not_prunable() -> None:
    model = initialized("resnet20")
    every = set(prunable_weights(model))
    assert every - set(prunable_weights(model, ("head",))) == {"head.weight"}
    assert every - set(prunable_weights(model, ("conv", "*.shortcut.*"))) == {
        "conv.weight",
        "blocks.3.shortcut.0.weight",
        "blocks.6.shortcut.0.weight",
    }


def test_a_pattern_without_a_layer_is_refused_with_the_layers() -> None:
    model = initialized("convnet")
    with pytest.raises(SettingError, match=r"'hed' matches no conv or linear layer; layers are conv1, conv2, conv3, head"):
        prunable_weights(model, ("conv1", "hed"))
    with pytest.raises(SettingError, match="'norm1' matches no"):
        prunable_weights(model, ("norm1",))


def test_excluding_everything_is_refused() -> None:
    with pytest.raises(SettingError, match=r"\['\*'\] leaves no layer to prune"):
        prunable_weights(initialized("convnet"), ("*",))
