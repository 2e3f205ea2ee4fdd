"""Networks by name: their sizes, their initialisation, and which weights can be pruned."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d
from torchvision.models import get_model, resnet18

from trainables.errors import ConfigError
from trainables.models.prunable import prunable_weights
from trainables.models.registry import MODELS, build_model, initialize


def initialized(name: str, seed: int = 0, channels: int = 3, side: int = 32) -> nn.Module:
    model = build_model(name, (channels, side, side), 10)
    initialize(model, seed)
    return model


def test_resnet20_weights_match_the_definition() -> None:
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


def test_resnet18_weights_match_the_definition() -> None:
    stem = 3 * 64 * 9
    stages = 4 * 64 * 64 * 9
    for width in (128, 256, 512):  # half the width in, then three more 3x3 convolutions and the 1x1 one of the shortcut
        stages += width // 2 * width * 9 + 3 * width * width * 9 + width // 2 * width
    model = initialized("resnet18")
    weights = prunable_weights(model)
    assert sum(weight.numel() for weight in weights.values()) == stem + stages + 512 * 10 == 11_164_352
    assert len(weights) == 1 + 16 + 3 + 1
    norms = 2 * 5 * (64 + 128 + 256 + 512)  # scale and shift; the stem's is the fifth at 64, the shortcut's at the others
    assert sum(parameter.numel() for parameter in model.parameters()) == 11_164_352 + norms + 10 == 11_173_962


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [8, 28, 32, 64])
def test_resnet18_stem_keeps_small_images(channels: int, side: int) -> None:
    model = build_model("resnet18", (channels, side, side), 10)
    stem = model.conv1
    assert isinstance(stem, nn.Conv2d)
    assert (stem.in_channels, stem.kernel_size, stem.stride, stem.padding) == (channels, (3, 3), (1, 1), (1, 1))
    assert stem.bias is None
    assert in_first_stage(model, channels, side, side) == (side, side)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(65, 65), (64, 96), (96, 64), (224, 224)])
def test_resnet18_stem_is_torchvisions_for_large_images(channels: int, height: int, width: int) -> None:
    model = build_model("resnet18", (channels, height, width), 10)
    stem = model.conv1
    assert isinstance(stem, nn.Conv2d)
    assert (stem.in_channels, stem.kernel_size, stem.stride, stem.padding) == (channels, (7, 7), (2, 2), (3, 3))
    assert stem.bias is None
    assert in_first_stage(model, channels, height, width) == (-(-height // 4), -(-width // 4))


def in_first_stage(model: nn.Module, channels: int, height: int, width: int) -> tuple[int, ...]:
    """Height and width of what reaches the first stage of a resnet18, without computing anything."""
    sizes: list[tuple[int, ...]] = []
    model.to("meta")
    model.get_submodule("layer1").register_forward_pre_hook(lambda _, inputs: sizes.append(tuple(inputs[0].shape[2:])))
    assert model(torch.empty(2, channels, height, width, device="meta")).shape == (2, 10)
    (size,) = sizes
    return size


def test_large_resnet18_equals_torchvisions() -> None:
    theirs = resnet18(num_classes=10)
    ours = build_model("resnet18", (3, 224, 224), 10)
    ours.load_state_dict(theirs.state_dict())
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(ours.eval()(images), theirs.eval()(images))


@pytest.mark.parametrize("channels", [1, 3])
def test_small_resnet18_differs_only_in_its_stem(channels: int) -> None:
    theirs = resnet18(num_classes=10)
    ours = build_model("resnet18", (channels, 32, 32), 10)
    shapes = [{name: tensor.shape for name, tensor in model.state_dict().items()} for model in (ours, theirs)]
    assert list(shapes[0]) == list(shapes[1])
    assert {name for name, shape in shapes[0].items() if shape != shapes[1][name]} == {"conv1.weight"}

    initialize(ours, 0)
    theirs.load_state_dict({name: tensor for name, tensor in ours.state_dict().items() if name != "conv1.weight"}, strict=False)
    stem = ours.state_dict()["conv1.weight"]
    images = torch.rand(2, channels, 32, 32, generator=torch.Generator().manual_seed(0))
    ours.eval()
    theirs.eval()
    with torch.inference_mode():
        hidden = torch.relu(theirs.bn1(conv2d(images, stem, padding=1)))
        hidden = theirs.layer4(theirs.layer3(theirs.layer2(theirs.layer1(hidden))))
        expected = theirs.fc(hidden.mean(dim=(2, 3)))
        torch.testing.assert_close(ours(images), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_large_resnet18_is_initialised_for_any_channels(channels: int) -> None:
    model = initialized("resnet18", channels=channels, side=72)
    logits = model(torch.rand(2, channels, 72, 72, generator=torch.Generator().manual_seed(0)))
    assert logits.shape == (2, 10)
    assert logits.isfinite().all()
    assert logits.std() > 0.01


@pytest.mark.parametrize(("name", "torchvision_name"), [("vgg11", "vgg11"), ("vgg16", "vgg16"), ("vgg19", "vgg19")])
def test_vgg_has_torchvisions_convolutions(name: str, torchvision_name: str) -> None:
    with torch.device("meta"):
        theirs = get_model(torchvision_name).features
    expected = [module.weight.shape for module in theirs if isinstance(module, nn.Conv2d)]
    shapes = [weight.shape for weight in prunable_weights(build_model(name, (3, 32, 32), 100)).values()]
    assert shapes == [*expected, (100, 512)]


def test_published_counts_of_prunable_weights() -> None:
    def count(name: str, channels: int, side: int, classes: int, width: int = 1) -> int:
        return sum(w.numel() for w in prunable_weights(build_model(name, (channels, side, side), classes, width)).values())

    assert count("vgg16", 3, 32, 100) == 14_761_664  # Synaptic-Flow's stored runs
    assert count("lenet300", 1, 28, 10) == 784 * 300 + 300 * 100 + 100 * 10
    # He et al.'s 0.46 and 0.85 million parameters, and their double width: about four times as many.
    assert round(count("resnet32", 3, 32, 10) / 1e6, 2) == 0.46
    assert round(count("resnet56", 3, 32, 10) / 1e6, 2) == 0.85
    assert 1.8e6 < count("resnet32", 3, 32, 10, width=2) < 1.9e6


def test_fan_out_initialisation_counts_outputs() -> None:
    model = build_model("vgg11", (3, 32, 32), 10)
    initialize(model, 0, "fan_out")
    weight = prunable_weights(model)["features.4.weight"].detach().double()
    assert weight.shape == (128, 64, 3, 3)
    assert abs(float(weight.std()) / math.sqrt(2 / (128 * 9)) - 1) < 5 / math.sqrt(2 * weight.numel())


def test_convnet_weights_match_the_docstring() -> None:
    weights = prunable_weights(initialized("convnet", channels=1, side=8))
    assert sum(weight.numel() for weight in weights.values()) == 9 * (16 + 16 * 32 + 32 * 32) + 128 * 10 == 15_248


@pytest.mark.parametrize("name", MODELS)
def test_initialisation_depends_on_the_seed_alone(name: str) -> None:
    model = build_model(name, (3, 32, 32), 10)
    initialize(model, 0)
    state = model.state_dict()
    first = {key: tensor.clone() for key, tensor in state.items()}
    torch.rand(100)
    before = torch.get_rng_state()
    for tensor in state.values():
        tensor.fill_(77)  # a value that initialisation never draws
    initialize(model, 0)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(tensor, first[key]) for key, tensor in state.items())
    initialize(model, 1)
    assert not any(torch.equal(first[key], state[key]) for key in prunable_weights(model))


@pytest.mark.parametrize("name", MODELS)
def test_weights_are_kaiming_normal_by_fan_in(name: str) -> None:
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


def test_prunable_weights_are_in_network_order() -> None:
    assert list(prunable_weights(initialized("convnet"))) == ["conv1.weight", "conv2.weight", "conv3.weight", "head.weight"]
    names = list(prunable_weights(initialized("resnet18")))
    assert names[:2] == ["conv1.weight", "layer1.0.conv1.weight"]
    assert names[-1] == "fc.weight"
    assert "layer2.0.downsample.0.weight" in names
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


def test_exclude_pattern_without_a_match_is_rejected() -> None:
    model = initialized("convnet")
    with pytest.raises(ConfigError, match=r"'hed' matches no conv or linear layer; layers are conv1, conv2, conv3, head"):
        prunable_weights(model, ("conv1", "hed"))
    with pytest.raises(ConfigError, match="'norm1' matches no"):
        prunable_weights(model, ("norm1",))


def test_excluding_everything_is_rejected() -> None:
    with pytest.raises(ConfigError, match=r"\['\*'\] leaves no layer to prune"):
        prunable_weights(initialized("convnet"), ("*",))
