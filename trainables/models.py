"""Architectures by name, seeded initialisation, and which of their weights are prunable.

Input size and channels come from the data set. Initialisation draws from one seeded CPU generator, so weights do not
depend on the device nor on what the process did before. Read by: phases.py, sparse_model.py.
"""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from trainables.config import Model, derived_seed
from trainables.failures import SettingError

SMALL_IMAGE = 64  # pixels; up to here a ResNet made for ImageNet would throw most of the image away in its stem


class ConvNet(nn.Module):
    """Three small conv layers and a linear one, for images of 8 x 8 and up: 15,248 prunable weights for digits."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1, stride=2, bias=False)
        self.norm2 = nn.BatchNorm2d(32)
        self.conv3 = nn.Conv2d(32, 32, 3, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(32)
        self.head = nn.Linear(32 * 4, num_classes)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        hidden = torch.relu(self.norm1(self.conv1(images_BCHW)))
        hidden = torch.relu(self.norm2(self.conv2(hidden)))
        hidden = torch.relu(self.norm3(self.conv3(hidden)))
        pooled = avg_pool2d(hidden, hidden.shape[-1] // 2)  # 2 x 2; the adaptive kernel has no deterministic gradient on CUDA
        logits: Tensor = self.head(pooled.flatten(1))
        return logits


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions; where the shape changes the shortcut is a 1x1 convolution with BN (option B)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False), nn.BatchNorm2d(channels_out)
            )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        hidden = torch.relu(self.norm1(self.conv1(x_BCHW)))
        return torch.relu(self.norm2(self.conv2(hidden)) + self.shortcut(x_BCHW))


class CifarResNet(nn.Module):
    """ResNet for small images (He et al., arXiv:1512.03385, section 4.2) with 6n+2 layers and widths 16, 32, 64."""

    def __init__(self, channels: int, num_classes: int, depth: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        blocks: list[nn.Module] = []
        width_in = 16
        for width, stride in ((16, 1), (32, 2), (64, 2)):
            for index in range((depth - 2) // 6):
                blocks.append(ResidualBlock(width_in, width, stride if index == 0 else 1))
                width_in = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(64, num_classes)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        hidden = self.blocks(torch.relu(self.norm(self.conv(images_BCHW))))
        logits: Tensor = self.head(hidden.mean(dim=(2, 3)))
        return logits


def _convnet(image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    return ConvNet(image_shape[0], num_classes)


def _resnet20(image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    return CifarResNet(image_shape[0], num_classes, depth=20)


def _resnet18(image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """torchvision's ResNet-18; for images up to SMALL_IMAGE pixels its stem is one 3x3 convolution, without pooling."""
    from torchvision.models import resnet18

    channels, height, width = image_shape
    model: nn.Module = resnet18(num_classes=num_classes)
    if max(height, width) <= SMALL_IMAGE:
        model.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        model.maxpool = nn.Identity()
    elif channels != 3:
        model.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    return model


_BUILDERS: dict[str, Callable[[tuple[int, int, int], int], nn.Module]] = {
    "convnet": _convnet,
    "resnet20": _resnet20,
    "resnet18": _resnet18,
}
MODELS: tuple[str, ...] = get_args(Model)


def build_model(name: str, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """The network on the CPU with undefined weights; `initialize` or a state dict fills them."""
    with torch.device("meta"):
        model = _BUILDERS[name](image_shape, num_classes)
    return model.to_empty(device="cpu")


def initialize(model: nn.Module, seed: int) -> None:
    """Sets every parameter and buffer: conv and linear weights Kaiming-normal (fan-in, ReLU), biases 0, BN the identity.

    Source: He et al., arXiv:1502.01852; fan-in as in Synaptic-Flow and open_lth.
    """
    generator = torch.Generator().manual_seed(derived_seed(seed, "init"))
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
            module.reset_running_stats()


def prunable_weights(model: nn.Module, exclude: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Name -> weight of every conv and linear layer, in the order of the network, without the excluded layers.

    Raises:
        SettingError: a pattern of `exclude` matches no layer, or nothing is left to prune.
    """
    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    for pattern in exclude:
        if not any(fnmatchcase(name, pattern) for name in layers):
            known = ", ".join(layers)
            raise SettingError(f"prunable.exclude: {pattern!r} matches no conv or linear layer; layers are {known}")
    kept = {name: m for name, m in layers.items() if not any(fnmatchcase(name, pattern) for pattern in exclude)}
    if not kept:
        raise SettingError(f"prunable.exclude: {list(exclude)} leaves no layer to prune")
    return {f"{name}.weight": module.weight for name, module in kept.items()}
