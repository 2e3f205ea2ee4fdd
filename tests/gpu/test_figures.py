"""The arithmetic of the sections, against plain Python and closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.gpu.sections.device_and_cpu import different_bits, noise_of
from tests.gpu.sections.selection import PRODUCT, WAYS
from tests.gpu.sections.throughput import step_flops
from tests.support.oracles import kept_positions, positions


def hostile_values(count: int) -> Tensor:
    """Both signs and zeros, ties, and numbers too small for a normal float."""
    generator = torch.Generator().manual_seed(count)
    values = torch.randn(count, generator=generator)
    values[::3] = values[0].clone()
    values[1::5] = 0.0
    values[2::7] = -0.0
    values[3::11] = 1e-42
    values[4::13] = -3e38
    return values


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("count", [1, 2, 257, 600])
def test_every_way_to_select_agrees_with_plain_sorting(way: str, count: int) -> None:
    values = hostile_values(count)
    masks = {"": torch.ones(count, dtype=torch.bool)}
    for kept in sorted({1, count // 3 or 1, count}):
        mask = WAYS[way](values, kept)
        assert positions({"": mask}) == kept_positions({"": values}, masks, kept), (kept, PRODUCT)


def test_different_bits_counts_what_one_network_keeps_and_the_other_does_not() -> None:
    first = {"a": torch.tensor([True, True, False]), "b": torch.tensor([[False, True]])}
    second = {"a": torch.tensor([True, False, True]), "b": torch.tensor([[True, True]])}
    assert different_bits(first, second) == 3


def test_noise_is_two_standard_errors_of_a_difference() -> None:
    # Variances 0.01 and 0.04 over three seeds: 2 * sqrt((0.01 + 0.04) / 3).
    difference, noise = noise_of([0.4, 0.5, 0.6], [0.5, 0.7, 0.9])
    assert difference == pytest.approx(0.2)
    assert noise == pytest.approx(2 * (0.05 / 3) ** 0.5)
    assert noise_of([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]) == (0.0, 0.03)


@pytest.mark.slow
def test_a_step_of_resnet18_has_the_published_operations() -> None:
    """0.56 billion multiply-adds forward on 32 x 32 pixels, twice as many backward, two operations each."""
    assert step_flops("resnet18") == pytest.approx(6 * 0.56e9, rel=0.01)
