"""The regulariser against enumeration and finite differences, its threshold on histograms that are written down."""

from __future__ import annotations

import pytest
import torch

from trainables.pruning.polarization import polarization, polarization_gradient, scale_threshold

COUNT = 10
LEAST = {-1.0: ({7, 8}, -11.2), 0.0: ({5}, -5.0), 0.5: ({4}, -2.8), 1.0: ({2, 3}, -1.2), 1.4: ({1, 2}, -0.4), 1.9: ({0}, 0.0)}


@pytest.mark.parametrize("strength", LEAST)
def test_least_values_keep_the_share_of_the_theorem(strength: float) -> None:
    """Over all corners of the cube; inside it nothing is lower, since the value is concave."""
    values = {
        kept: float(polarization(torch.tensor([1.0] * kept + [0.0] * (COUNT - kept), dtype=torch.float64), strength))
        for kept in range(COUNT + 1)
    }
    for kept, value in values.items():
        assert value == pytest.approx(strength * kept - 2 * kept * (COUNT - kept) / COUNT)
    least = min(values.values())
    expected, value_there = LEAST[strength]
    assert {kept for kept, value in values.items() if value < least + 1e-9} == expected
    assert least == pytest.approx(value_there)
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        inside = torch.rand(COUNT, generator=generator, dtype=torch.float64)
        assert float(polarization(inside, strength)) >= least - 1e-9


def test_value_is_concave_and_permutation_does_not_change_it() -> None:
    generator = torch.Generator().manual_seed(1)
    for strength in (-0.5, 0.0, 1.4):
        for _ in range(100):
            first, second = torch.rand(2, COUNT, generator=generator, dtype=torch.float64)
            between = float(polarization((first + second) / 2, strength))
            ends = float(polarization(first, strength) + polarization(second, strength)) / 2
            assert between >= ends - 1e-9
            shuffled = first[torch.randperm(COUNT, generator=generator)]
            assert float(polarization(shuffled, strength)) == pytest.approx(float(polarization(first, strength)))


def test_gradient_is_that_of_finite_differences_and_of_autograd() -> None:
    scales = torch.rand(COUNT, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = polarization_gradient(scales, 1.4)
    step = 1e-6
    for index in range(COUNT):
        there, back = scales.clone(), scales.clone()
        there[index] += step
        back[index] -= step
        slope = float(polarization(there, 1.4) - polarization(back, 1.4)) / (2 * step)
        assert float(found[index]) == pytest.approx(slope, abs=1e-6)
    variable = scales.clone().requires_grad_()
    (by_autograd,) = torch.autograd.grad(polarization(variable, 1.4), [variable])
    assert torch.allclose(found, by_autograd)


@pytest.mark.parametrize(
    ("scales", "threshold"),
    [
        ([0.005] * 30 + [0.015] * 5 + [0.025] + [0.5] * 20, 0.03),
        ([0.5] * 30, 0.01),
        ([0.005] * 3 + [0.015] * 9 + [0.025] * 4 + [0.035] * 6, 0.02),
    ],
)
def test_threshold_is_the_first_valley(scales: list[float], threshold: float) -> None:
    assert scale_threshold(torch.tensor(scales)) == pytest.approx(threshold)
