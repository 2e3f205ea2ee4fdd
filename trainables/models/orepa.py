"""OREPA blocks (Hu et al., arXiv:2204.00826): a 3x3 convolution that is trained as a sum of six branches, in one kernel.

All branches are linear in the image, so each step computes one kernel from the branches' weights and convolves once; the sum of
separately executed branches is the same function. The scales of the branches, one for each output channel, take the place of
norm layers within them and give the branches gradients of their own. Read in the authors' code; the body of the paper was not.

Shapes: O output channels, I input channels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

KERNEL = 3
DEPTHWISE = 8  # filters of each input channel in the last branch
SCALES = (0.25, 0.25, 0.0, 0.5, 1.0, 0.5)  # of the branches, at the start


class OrepaConv(nn.Module):
    """A 3x3 convolution without bias whose kernel is the sum of scaled branches.

    Branches: 0 a 3x3 kernel; 1 a 1x1 kernel before an average over 3x3, which counts padding; 2 a 1x1 kernel before fixed
    frequency filters; 3 a 1x1 kernel, the identity at the start, before a 3x3 kernel; 4 a 1x1 kernel; 5 eight depthwise 3x3
    filters of each input before a 1x1 kernel.
    """

    plain: nn.Parameter
    average: nn.Parameter
    frequency: nn.Parameter
    before: nn.Parameter
    after: nn.Parameter
    pointwise: nn.Parameter
    depthwise: nn.Parameter
    mixing: nn.Parameter
    frequencies: Tensor

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.stride = channels_in, channels_out, stride
        shapes = {
            "plain": (channels_out, channels_in, KERNEL, KERNEL),
            "average": (channels_out, channels_in),
            "frequency": (channels_out, channels_in),
            "before": (channels_in, channels_in),
            "after": (channels_out, channels_in, KERNEL, KERNEL),
            "pointwise": (channels_out, channels_in),
            "depthwise": (channels_in, DEPTHWISE, KERNEL, KERNEL),
            "mixing": (channels_out, channels_in, DEPTHWISE),
        }
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.empty(shape)))
        self.scales = nn.Parameter(torch.empty(len(SCALES), channels_out))
        self.register_buffer("frequencies", frequency_filters(channels_out), persistent=False)

    def initialize(self, generator: torch.Generator | None = None) -> None:
        """Kaiming-uniform kernels (a = 0), the identity before the fourth branch, and the scales at the start."""
        for name, fan_in in (
            ("plain", self.in_channels * KERNEL**2),
            ("average", self.in_channels),
            ("frequency", self.in_channels),
            ("after", self.in_channels * KERNEL**2),
            ("pointwise", self.in_channels),
            ("depthwise", KERNEL**2),
            ("mixing", self.in_channels * DEPTHWISE),
        ):
            bound = math.sqrt(6.0 / fan_in)
            nn.init.uniform_(getattr(self, name), -bound, bound, generator=generator)
        with torch.no_grad():
            self.before.zero_()  # is added to the identity
            self.scales.copy_(torch.tensor(SCALES)[:, None].expand_as(self.scales))

    def branches(self) -> list[Tensor]:
        """The kernel of each branch before its scale, (O, I, 3, 3)."""
        centre = torch.zeros(KERNEL, KERNEL, dtype=self.plain.dtype, device=self.plain.device)
        centre[KERNEL // 2, KERNEL // 2] = 1.0
        identity = torch.eye(self.in_channels, dtype=self.plain.dtype, device=self.plain.device)
        return [
            self.plain,
            (self.average / KERNEL**2)[:, :, None, None].expand(-1, -1, KERNEL, KERNEL),
            self.frequency[:, :, None, None] * self.frequencies[:, None].to(self.plain.dtype),
            torch.einsum("ti,othw->oihw", identity + self.before, self.after),
            self.pointwise[:, :, None, None] * centre,
            torch.einsum("iehw,oie->oihw", self.depthwise, self.mixing),
        ]

    def kernel(self) -> Tensor:
        """The kernel of the whole block, (O, I, 3, 3)."""
        return torch.stack(
            [scale[:, None, None, None] * one for scale, one in zip(self.scales, self.branches(), strict=True)]
        ).sum(0)

    def forward(self, images_BIHW: Tensor) -> Tensor:
        return conv2d(images_BIHW, self.kernel(), stride=self.stride, padding=KERNEL // 2)


def frequency_filters(channels: int) -> Tensor:
    """The fixed filters of the third branch, float32 (O, 3, 3): cosines over rows in the first half, over columns then.

    P[o, h, w] = cos(pi (h + 1/2) (o + 1) / 3) for o < O/2, else cos(pi (w + 1/2) (o + 1 - O/2) / 3). Of each half every third
    is zero everywhere, as in the authors' code.
    """
    half = channels // 2
    taps = torch.arange(KERNEL, dtype=torch.float64) + 0.5
    filters = torch.empty(channels, KERNEL, KERNEL, dtype=torch.float64)
    for channel in range(channels):
        frequency = channel + 1 if channel < half else channel + 1 - half
        waves = torch.cos(math.pi * taps * frequency / KERNEL)
        filters[channel] = waves[:, None].expand(-1, KERNEL) if channel < half else waves.expand(KERNEL, -1)
    return filters.float()


def block_numbers(channels_in: int, channels_out: int) -> int:
    """How many numbers a block holds."""
    kernels = (2 * KERNEL**2 + 3 + DEPTHWISE) * channels_out * channels_in
    return kernels + channels_in**2 + DEPTHWISE * KERNEL**2 * channels_in + len(SCALES) * channels_out


def squeezed(model: nn.Module) -> nn.Module:
    """The network with a plain convolution in the place of each block, changed in place; one without blocks stays as it is."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, OrepaConv):
                with torch.no_grad():
                    plain = nn.Conv2d(
                        child.in_channels, child.out_channels, KERNEL, stride=child.stride, padding=KERNEL // 2, bias=False
                    ).to(child.plain)
                    plain.weight = nn.Parameter(torch.empty_like(child.plain).copy_(child.kernel()))  # in its memory order
                setattr(module, name, plain.train(child.training))
    return model
