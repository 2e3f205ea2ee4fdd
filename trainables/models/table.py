"""The table of built-in networks: everything about a network except its code. Importing it does not load PyTorch.

To add a network, write its module in a file of this folder and add an entry here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

ImageShape = tuple[int, int, int]  # channels, height, width


def _any_size(height: int, width: int) -> bool:
    """For networks with a mean over all pixels, or with linear layers built for the image size."""
    return True


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """One built-in network.

    Attributes:
        build: image shape, number of classes and width -> the module, with undefined weights; imports PyTorch when called.
        takes_image: whether it supports images of a height and width in pixels, in the forward and the backward pass.
        has_width: whether `width` multiplies its channels; otherwise `width` must be 1.
        has_blocks: whether its 3x3 convolutions can be trained as blocks.
        has_spikes: whether it has a spiking form: each ReLU is a module of its own, and nothing is drawn at random.
        description: for the guide.
    """

    name: str
    build: Callable[[ImageShape, int, int], nn.Module]
    description: str
    takes_image: Callable[[int, int], bool] = _any_size
    has_width: bool = False
    has_blocks: bool = False
    has_spikes: bool = False


def _convnet(image_shape: ImageShape, num_classes: int, width: int) -> nn.Module:
    from trainables.models.networks import ConvNet

    return ConvNet(image_shape[0], num_classes)


def _cifar_resnet(depth: int, image_shape: ImageShape, num_classes: int, width: int) -> nn.Module:
    from trainables.models.networks import CifarResNet

    return CifarResNet(image_shape[0], num_classes, depth, width)


def _lenet300(image_shape: ImageShape, num_classes: int, width: int) -> nn.Module:
    from trainables.models.networks import LeNet300

    return LeNet300(image_shape, num_classes)


def _alexnet(image_shape: ImageShape, num_classes: int, width: int) -> nn.Module:
    from trainables.models.networks import AlexNet

    return AlexNet(image_shape[0], num_classes)


def _vgg(depth: int, image_shape: ImageShape, num_classes: int, width: int) -> nn.Module:
    from trainables.models.networks import VGG

    return VGG(image_shape[0], num_classes, depth)


def _torchvision_resnet(name: str, image_shape: ImageShape, num_classes: int, width: int) -> nn.Module:
    from trainables.models.torchvision_resnets import torchvision_resnet

    return torchvision_resnet(name, image_shape, num_classes)


def _convnet_takes(height: int, width: int) -> bool:
    """Its feature maps have half the side, rounded up, and are pooled to 2 x 2."""
    return _pools_to(2, -(-height // 2), -(-width // 2))


def _alexnet_takes(height: int, width: int) -> bool:
    """The image is halved three times and pooled to 4 x 4."""
    return _pools_to(4, height // 8, width // 8)


def _vgg_takes(height: int, width: int) -> bool:
    """The image is halved four times."""
    return min(height, width) >= 16


def _pools_to(side: int, height: int, width: int) -> bool:
    """Whether windows of size width // side cover a feature map exactly `side` times in both directions."""
    window = width // side
    return window > 0 and height // window == width // window == side


def _cifar(depth: int) -> Network:
    return Network(
        name=f"resnet{depth}",
        build=partial(_cifar_resnet, depth),
        has_width=True,
        has_blocks=True,
        has_spikes=True,
        description=f"ResNet-{depth} for images of CIFAR's size (arXiv:1512.03385); `width: 2` doubles its channels",
    )


def _torchvision(depth: int) -> Network:
    name = f"resnet{depth}"
    description = f"torchvision's ResNet-{depth}, with a small stem for images of up to 64 pixels"
    return Network(name=name, build=partial(_torchvision_resnet, name), has_blocks=True, description=description)


def _vgg_of(depth: int) -> Network:
    description = f"VGG-{depth} with BN for small images of at least 16 x 16"
    name, build = f"vgg{depth}", partial(_vgg, depth)
    return Network(name=name, build=build, takes_image=_vgg_takes, has_blocks=True, description=description)


_ALL = (
    Network(
        name="convnet",
        build=_convnet,
        takes_image=_convnet_takes,
        has_blocks=True,
        has_spikes=True,
        description="three small convolutions and a linear layer; 15,248 prunable weights for digits",
    ),
    _cifar(20),
    _torchvision(18),
    Network(
        name="lenet300",
        build=_lenet300,
        description="LeNet-300-100: two hidden linear layers; 266,200 prunable weights for images of 28 x 28",
    ),
    Network(name="alexnet", build=_alexnet, takes_image=_alexnet_takes, description="AlexNet for small images"),
    _vgg_of(11),
    _vgg_of(16),
    _vgg_of(19),
    _cifar(32),
    _cifar(56),
    _torchvision(34),
    _torchvision(50),
)
NETWORKS: dict[str, Network] = {network.name: network for network in _ALL}
