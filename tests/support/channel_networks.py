"""Networks whose channels are hard to follow, and an independent account of which channels go together in the simple ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.channels.units import Place
from trainables.models.networks import CifarResNet


class PaddedResidual(nn.Module):
    """A network whose shortcut takes every second pixel and pads channels with zeros (option A of arXiv:1512.03385)."""

    def __init__(self, channels: int = 1, num_classes: int = 10) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.conv1 = nn.Conv2d(8, 16, 3, padding=1, stride=2, bias=False)
        self.norm1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(16)
        self.head = nn.Linear(16, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        stream = torch.relu(self.norm(self.conv(images)))
        inner = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(stream)))))
        shortcut = functional.pad(stream[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        logits: Tensor = self.head(torch.relu(inner + shortcut).mean(dim=(2, 3)))
        return logits


class Concatenated(nn.Module):
    """Two branches of other widths, one of them depthwise, side by side before a grouped convolution and a flattened map."""

    def __init__(self, channels: int = 1, num_classes: int = 10) -> None:
        super().__init__()
        self.left = nn.Conv2d(channels, 6, 3, padding=1)
        self.right = nn.Conv2d(channels, 4, 3, padding=1)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.norm = nn.BatchNorm2d(10)
        self.mix = nn.Conv2d(10, 8, 1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.head = nn.Linear(8 * 4, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        left, right = self.left(images), self.depthwise(torch.relu(self.right(images)))
        maps = torch.relu(self.norm(torch.cat([left, right], 1)))
        maps = torch.relu(self.grouped(self.mix(maps)))
        logits: Tensor = self.head(functional.adaptive_avg_pool2d(maps, 2).flatten(1))
        return logits


def groups_of_cifar_resnet(network: CifarResNet) -> list[set[Place]]:
    """By its definition: one group for the stream of each stage, and one for the first convolution of each block."""
    groups: list[set[Place]] = []
    layers = dict(network.named_modules())
    stream = _made_by("conv", "norm")
    for index in range(len(network.blocks)):
        name = f"blocks.{index}"
        if f"{name}.shortcut.0" in layers:
            stream |= _read_by(f"{name}.conv1", f"{name}.shortcut.0")
            groups.append(stream)
            stream = _made_by(f"{name}.shortcut.0", f"{name}.shortcut.1")
        else:
            stream |= _read_by(f"{name}.conv1")
        groups.append(_made_by(f"{name}.conv1", f"{name}.norm1") | _read_by(f"{name}.conv2"))
        stream |= _made_by(f"{name}.conv2", f"{name}.norm2")
    return [*groups, stream | _read_by("head")]


def _made_by(conv: str, norm: str) -> set[Place]:
    of_norm = {(f"{norm}.{name}", 0) for name in ("weight", "bias", "running_mean", "running_var")}
    return {(f"{conv}.weight", 0)} | of_norm


def _read_by(*layers: str) -> set[Place]:
    return {(f"{layer}.weight", 1) for layer in layers}


def with_integers(network: nn.Module) -> nn.Module:
    """The network with small whole numbers everywhere, so that sums of every length are exact; its norm layers only add."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith("running_var"):
                value.fill_(1.0)
            elif value.is_floating_point():
                value.copy_(torch.randint(-1, 2, value.shape, generator=generator))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.eps = 0.0
    return network.eval()
