"""An OREPA block is the sum of its branches, each executed by itself; its gradients too; squeezed it is one convolution."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d

from trainables.models.orepa import DEPTHWISE, KERNEL, OrepaConv, frequency_filters, squeezed

NAMES = ("plain", "average", "frequency", "before", "after", "pointwise", "depthwise", "mixing", "scales")


def block(channels_in: int = 4, channels_out: int = 6, stride: int = 1) -> OrepaConv:
    made = OrepaConv(channels_in, channels_out, stride).double()
    made.initialize(torch.Generator().manual_seed(0))
    with torch.no_grad():  # so that no branch is without effect
        made.before.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
        made.scales.uniform_(0.1, 1.0, generator=torch.Generator().manual_seed(2))
    return made


def images(side: int = 7) -> Tensor:
    return torch.randn(2, 4, side, side, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def by_branches(of: OrepaConv, given: Tensor) -> Tensor:
    """The branches one after another, each as the operations that it is named for."""
    stride, pad = of.stride, KERNEL // 2

    def pointwise(weight: Tensor, images: Tensor) -> Tensor:
        return conv2d(images, weight[:, :, None, None])

    filters = frequency_filters(of.out_channels).double()[:, None]
    identity = torch.eye(of.in_channels, dtype=torch.float64)
    stacked = of.depthwise.reshape(of.in_channels * DEPTHWISE, 1, KERNEL, KERNEL)
    outputs = [
        conv2d(given, of.plain, stride=stride, padding=pad),
        avg_pool2d(pointwise(of.average, given), KERNEL, stride, pad, count_include_pad=True),
        conv2d(pointwise(of.frequency, given), filters, stride=stride, padding=pad, groups=of.out_channels),
        conv2d(pointwise(identity + of.before, given), of.after, stride=stride, padding=pad),
        conv2d(given, of.pointwise[:, :, None, None], stride=stride),
        pointwise(
            of.mixing.reshape(of.out_channels, -1), conv2d(given, stacked, stride=stride, padding=pad, groups=of.in_channels)
        ),
    ]
    return torch.stack([scale[:, None, None] * one for scale, one in zip(of.scales, outputs, strict=True)]).sum(0)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [7, 8])
def test_block_is_the_sum_of_its_branches_with_their_gradients(stride: int, side: int) -> None:
    made, given = block(stride=stride), images(side)
    together, apart = made(given), by_branches(made, given)
    assert together.shape == apart.shape
    assert float((together - apart).detach().abs().max()) < 1e-12
    weights = [made.get_parameter(name) for name in NAMES]
    direction = torch.randn(together.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    for name, one, other in zip(
        NAMES,
        torch.autograd.grad((together * direction).sum(), weights),
        torch.autograd.grad((apart * direction).sum(), weights),
        strict=True,
    ):
        assert float((one - other).abs().max()) < 1e-11 * max(1.0, float(other.abs().max())), name


def test_gradients_of_scales_and_kernels_follow_from_that_of_the_whole_kernel() -> None:
    made, given = block(), images()
    kernel = made.kernel().detach().requires_grad_()
    (by_kernel,) = torch.autograd.grad(conv2d(given, kernel, padding=1).square().sum(), [kernel])
    by_scales, by_plain = torch.autograd.grad(made(given).square().sum(), [made.scales, made.plain])
    expected = torch.stack([(one * by_kernel).sum((1, 2, 3)) for one in made.branches()])
    assert torch.allclose(by_scales, expected, rtol=1e-10)
    assert torch.allclose(by_plain, made.scales[0][:, None, None, None] * by_kernel, rtol=1e-10)


def test_a_branch_of_scale_zero_learns_its_scale_first() -> None:
    made = OrepaConv(4, 6).double()
    made.initialize(torch.Generator().manual_seed(0))
    by_kernel, by_scales = torch.autograd.grad(made(images()).square().sum(), [made.frequency, made.scales])
    assert not bool(by_kernel.any())
    assert bool(by_scales[2].any())


def test_frequencies_are_cosines_over_rows_and_columns() -> None:
    filters = frequency_filters(12).double()
    for channel in range(12):
        first = channel < 6
        number = channel % 6 + 1
        for row in range(3):
            for column in range(3):
                tap = row if first else column
                expected = torch.cos(torch.tensor(torch.pi * (tap + 0.5) * number / 3, dtype=torch.float64))
                assert float(filters[channel, row, column]) == pytest.approx(float(expected), abs=1e-6)
    assert [channel for channel in range(12) if float(filters[channel].abs().max()) < 1e-6] == [2, 8]


def test_squeezed_network_has_plain_convolutions_and_the_same_outputs() -> None:
    network = nn.Sequential(block(), nn.BatchNorm2d(6).double(), nn.ReLU(), nn.Sequential(block(6, 3, 2))).double().eval()
    before = network(images())
    assert squeezed(network) is network
    assert not any(isinstance(module, OrepaConv) for module in network.modules())
    assert {type(module).__name__ for module in network.modules()} == {"Sequential", "Conv2d", "BatchNorm2d", "ReLU"}
    assert torch.allclose(network(images()), before, rtol=1e-12, atol=1e-12)
    assert squeezed(network) is network  # once more changes nothing
