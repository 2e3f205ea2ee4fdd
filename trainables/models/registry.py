"""Networks by name, and seeded initialisation.

Input size and channels come from the data set. Initialisation draws from one seeded CPU generator, so weights do not
depend on the device nor on what the process did before.
"""

from __future__ import annotations

from typing import get_args

import torch
from torch import nn

from trainables.config.trial import Initialization, Model, TrialConfig
from trainables.custom.imports import load_function
from trainables.custom.references import is_custom
from trainables.errors import ConfigError
from trainables.models.custom_network import build_custom_network
from trainables.models.image_sizes import image_size_problem
from trainables.models.networks import VGG, AlexNet, CifarResNet, ConvNet, LeNet300
from trainables.runtime.seeding import derived_seed

SMALL_IMAGE = 64  # pixels; up to here a ResNet made for ImageNet would throw most of the image away in its stem
CIFAR_RESNETS = {"resnet20": 20, "resnet32": 32, "resnet56": 56}
VGGS = {"vgg11": 11, "vgg16": 16, "vgg19": 19}
MODELS: tuple[str, ...] = get_args(Model)


def _torchvision_resnet(name: str, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """torchvision's ResNet; for images up to SMALL_IMAGE pixels its stem is one 3x3 convolution, without pooling."""
    from torchvision import models

    channels, height, width = image_shape
    model: nn.Module = models.get_model(name, num_classes=num_classes)
    if max(height, width) <= SMALL_IMAGE:
        model.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        model.maxpool = nn.Identity()
    elif channels != 3:
        model.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    return model


def build_model(
    name: str, image_shape: tuple[int, int, int], num_classes: int, width: int = 1, device: str = "meta"
) -> nn.Module:
    """The network on the CPU with undefined weights; `initialize` or a state dict fills them.

    Args:
        width: factor of the channels of a CIFAR ResNet; 1 for every other network.
        device: where it is made first; without memory, which takes PyTorch a while to import, or with weights for nothing.

    Raises:
        ConfigError: it takes no images of this size.
    """
    return _shaped_model(name, image_shape, num_classes, width, device).to_empty(device="cpu")


def meta_model(name: str, image_shape: tuple[int, int, int], num_classes: int, width: int = 1) -> nn.Module:
    """The network with the shapes of its weights and without memory for them. Raises as `build_model` does."""
    return _shaped_model(name, image_shape, num_classes, width, "meta")


def _shaped_model(name: str, image_shape: tuple[int, int, int], num_classes: int, width: int, device: str) -> nn.Module:
    channels, height, width_in_pixels = image_shape
    if problem := image_size_problem(name, height, width_in_pixels):
        raise ConfigError(problem)
    with torch.device(device):
        if name in CIFAR_RESNETS:
            model: nn.Module = CifarResNet(channels, num_classes, CIFAR_RESNETS[name], width)
        elif name in VGGS:
            model = VGG(channels, num_classes, VGGS[name])
        elif name == "convnet":
            model = ConvNet(channels, num_classes)
        elif name == "lenet300":
            model = LeNet300(image_shape, num_classes)
        elif name == "alexnet":
            model = AlexNet(channels, num_classes)
        else:
            model = _torchvision_resnet(name, image_shape, num_classes)
    return model


def network_of(config: TrialConfig, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """The trial's network, with undefined weights; a user's own, whose module is imported, has its initial ones."""
    if is_custom(config.model):
        return build_custom_network(config.model, load_function(config.model), image_shape, num_classes, config.seed)
    return build_model(config.model, image_shape, num_classes, config.width)


def initialized_network(config: TrialConfig, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """The trial's network on the CPU with its initial weights, which depend on the seed alone."""
    network = network_of(config, image_shape, num_classes)
    if not is_custom(config.model):
        initialize(network, config.seed, config.initialization)
    return network


def initialize(model: nn.Module, seed: int, mode: Initialization = "fan_in") -> None:
    """Sets every parameter and buffer: conv and linear weights Kaiming-normal (ReLU), biases 0, BN the identity.

    Source: He et al., arXiv:1502.01852; fan-in as in Synaptic-Flow's VGG and open_lth, fan-out as in its ResNet-18 and GraSP.
    """
    generator = torch.Generator().manual_seed(derived_seed(seed, "init"))
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
            module.reset_running_stats()
