"""The networks of the pruning literature for small images; torchvision's ResNets are adapted in registry.py.

Shapes: B images, C channels, H height, W width; images are square. Every network ends in `head`, its classifier.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

VGG_WIDTHS: dict[int, tuple[tuple[int, ...], ...]] = {  # by stage; between stages the image is halved
    11: ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    16: ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
    19: ((64, 64), (128, 128), (256, 256, 256, 256), (512, 512, 512, 512), (512, 512, 512, 512)),
}


class ConvNet(nn.Module):
    """Three small conv layers and a linear one, for images of 8 x 8 and up: 15,248 prunable weights for digits."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(16)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1, stride=2, bias=False)
        self.norm2 = nn.BatchNorm2d(32)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(32, 32, 3, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(32)
        self.relu3 = nn.ReLU()
        self.head = nn.Linear(32 * 4, num_classes)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        hidden = self.relu1(self.norm1(self.conv1(images_BCHW)))
        hidden = self.relu2(self.norm2(self.conv2(hidden)))
        hidden = self.relu3(self.norm3(self.conv3(hidden)))
        pooled = avg_pool2d(hidden, hidden.shape[-1] // 2)  # 2 x 2; the adaptive kernel has no deterministic gradient on CUDA
        logits: Tensor = self.head(pooled.flatten(1))
        return logits


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions; where the shape changes the shortcut is a 1x1 convolution with BN (option B)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False), nn.BatchNorm2d(channels_out)
            )
        self.relu2 = nn.ReLU()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        hidden = self.relu1(self.norm1(self.conv1(x_BCHW)))
        output: Tensor = self.relu2(self.norm2(self.conv2(hidden)) + self.shortcut(x_BCHW))
        return output


class CifarResNet(nn.Module):
    """ResNet for small images (He et al., arXiv:1512.03385, section 4.2): 6n+2 layers, `width` times 16, 32 and 64 channels.

    The "ResNet-32" of GraSP and others is the one of width 2.
    """

    def __init__(self, channels: int, num_classes: int, depth: int, width: int = 1) -> None:
        super().__init__()
        width_in = 16 * width
        self.conv = nn.Conv2d(channels, width_in, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width_in)
        self.relu = nn.ReLU()
        blocks: list[nn.Module] = []
        for width_out, stride in ((16 * width, 1), (32 * width, 2), (64 * width, 2)):
            for index in range((depth - 2) // 6):
                blocks.append(ResidualBlock(width_in, width_out, stride if index == 0 else 1))
                width_in = width_out
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(width_in, num_classes)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        hidden = self.blocks(self.relu(self.norm(self.conv(images_BCHW))))
        logits: Tensor = self.head(hidden.mean(dim=(2, 3)))
        return logits


class LeNet300(nn.Module):
    """LeNet-300-100 (LeCun et al., 1998): two hidden linear layers; 266,200 prunable weights for images of 28 x 28."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.linear1 = nn.Linear(channels * height * width, 300)
        self.linear2 = nn.Linear(300, 100)
        self.head = nn.Linear(100, num_classes)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        hidden = torch.relu(self.linear1(images_BCHW.flatten(1)))
        logits: Tensor = self.head(torch.relu(self.linear2(hidden)))
        return logits


class AlexNet(nn.Module):
    """AlexNet's form for small images: its five convolutions with torchvision's widths (64, 192, 384, 256, 256), kernels of 5
    in the second and 3 elsewhere, BN after each, and two hidden linear layers of 1,024 with dropout.

    The papers that prune AlexNet on CIFAR do not agree on one form; this one trains with the recipes of the other networks.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width, kernel, halve in ((64, 3, True), (192, 5, True), (384, 3, False), (256, 3, False), (256, 3, True)):
            layers += [nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if halve else []
            channels = width
        self.features = nn.Sequential(*layers)
        self.hidden = nn.Sequential(
            nn.Dropout(), nn.Linear(256 * 16, 1024), nn.ReLU(), nn.Dropout(), nn.Linear(1024, 1024), nn.ReLU()
        )
        self.head = nn.Linear(1024, num_classes)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        maps = self.features(images_BCHW)
        pooled = avg_pool2d(maps, maps.shape[-1] // 4)  # 4 x 4 for images of 32 and of 64 pixels
        logits: Tensor = self.head(self.hidden(pooled.flatten(1)))
        return logits


class VGG(nn.Module):
    """VGG with BN in the form for small images (Simonyan and Zisserman, arXiv:1409.1556; one linear layer on the mean of the
    last maps): 14,761,664 prunable weights for VGG-16 and 100 classes."""

    def __init__(self, channels: int, num_classes: int, depth: int) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        for index, widths in enumerate(VGG_WIDTHS[depth]):
            stages += [nn.MaxPool2d(2)] if index else []
            for width in widths:
                stages += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
        self.features = nn.Sequential(*stages)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images_BCHW).mean(dim=(2, 3)))
        return logits
