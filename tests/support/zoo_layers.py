"""Layers and helpers of the networks of the zoo."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Shape = tuple[int, int, int]


class Chain(nn.Module):
    """Named layers and what is done with them."""

    def __init__(self, forward: Callable[[Any, Tensor], Any], **layers: nn.Module) -> None:
        super().__init__()
        self.function = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, images_BCHW: Tensor) -> Any:
        return self.function(self, images_BCHW)


def conv_chain(image_shape: Shape, num_classes: int, *middle: nn.Module, width: int = 8, last: int = 8) -> nn.Sequential:
    """A convolution, layers of `width` channels, and a head on the mean of `last` maps."""
    first = nn.Conv2d(image_shape[0], width, 3, padding=1)
    return nn.Sequential(first, *middle, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, num_classes))


def pixels(image_shape: Shape) -> int:
    return image_shape[0] * image_shape[1] * image_shape[2]


class Resized(nn.Module):
    """A network of torchvision on images that are scaled to what it takes, in three channels."""

    def __init__(self, network: nn.Module, side: int) -> None:
        super().__init__()
        self.network, self.side = network, side

    def forward(self, images_BCHW: Tensor) -> Any:
        images = images_BCHW.expand(-1, 3, -1, -1) if images_BCHW.shape[1] == 1 else images_BCHW
        return self.network(functional.interpolate(images, (self.side, self.side)))


class Block(nn.Module):
    """A block of a vision transformer as timm writes it: scaled_dot_product_attention, a scale of each branch."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.1))
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c)
        x = x + self.scale * self.proj(mixed)
        hidden: Tensor = x + self.scale * self.fc2(functional.gelu(self.fc1(self.norm2(x))))
        return hidden


class TimmLikeViT(nn.Module):
    def __init__(self, image_shape: Shape, num_classes: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(image_shape[0], 16, 2, stride=2)
        tokens = (image_shape[1] // 2) * (image_shape[2] // 2)
        self.cls, self.position = nn.Parameter(torch.zeros(1, 1, 16)), nn.Parameter(torch.randn(1, tokens + 1, 16) * 0.02)
        self.blocks = nn.Sequential(Block(16, 2), Block(16, 2))
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.position
        scores: Tensor = self.head(self.norm(self.blocks(x))[:, 0])
        return scores


class StandardizedConv(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        mean, std = self.weight.mean((1, 2, 3), keepdim=True), self.weight.std((1, 2, 3), keepdim=True)
        maps: Tensor = self._conv_forward(input, (self.weight - mean) / (std + 1e-5), self.bias)
        return maps


class Buffered(nn.Module):
    def __init__(self, image_shape: Shape, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("offset", torch.rand(image_shape))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.head = nn.Linear(pixels(image_shape), num_classes)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head((x + torch.as_tensor(self.offset)).flatten(1))
        return scores


class Doubling(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * 2
