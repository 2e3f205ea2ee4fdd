"""Compensation against least squares, and the greedy order against the residuals of least squares."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trainables.channels.compensation import Moments, compensate, greedy_order, input_moments, rescaled

CHANNELS, PIXELS, OUTPUTS, SAMPLES = 5, 4, 3, 400
ENTRIES = CHANNELS * PIXELS


def sample(seed: int = 0) -> Tensor:
    """Inputs that depend on each other, with a mean."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(SAMPLES, ENTRIES, generator=generator, dtype=torch.float64) @ torch.randn(
        ENTRIES, ENTRIES, generator=generator, dtype=torch.float64
    )
    return mixed + torch.randn(ENTRIES, generator=generator, dtype=torch.float64)


def moments_of(rows: Tensor) -> Moments:
    size = rows.shape[1]
    moments = Moments(count=0, total=torch.zeros(size).double(), products=torch.zeros(size, size).double())
    for part in rows.split(150):
        moments.add(part)
    return moments


def weight(seed: int = 1) -> Tensor:
    return torch.randn(OUTPUTS, ENTRIES, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def kept_entries(channels: list[int]) -> Tensor:
    kept = torch.zeros(ENTRIES, dtype=torch.bool)
    for channel in channels:
        kept[PIXELS * channel : PIXELS * (channel + 1)] = True
    return kept


def least_squares(rows: Tensor, outputs: Tensor, kept: Tensor) -> tuple[Tensor, Tensor, float]:
    """Weight, bias and mean squared error of the best affine map, by numpy."""
    design = np.hstack([rows[:, kept].numpy(), np.ones((len(rows), 1))])
    solution, _, _, _ = np.linalg.lstsq(design, outputs.numpy(), rcond=None)
    error = float(((design @ solution - outputs.numpy()) ** 2).sum(1).mean())
    found = torch.from_numpy(solution)
    return found[:-1].T, found[-1], error


def test_closed_form_is_least_squares() -> None:
    rows, kept = sample(), kept_entries([0, 2, 3])
    outputs = rows @ weight().T
    found = compensate(weight(), moments_of(rows), kept)
    by_numpy, bias, error = least_squares(rows, outputs, kept)
    assert torch.allclose(found.weight, by_numpy, rtol=1e-5, atol=1e-6)
    assert torch.allclose(found.bias, bias, rtol=1e-5, atol=1e-5)
    assert found.error == pytest.approx(error, rel=1e-6)
    measured = (outputs - rows[:, kept] @ found.weight.T - found.bias).square().sum(1).mean()
    assert float(measured) == pytest.approx(error, rel=1e-6)
    plain = (outputs - rows[:, kept] @ weight()[:, kept].T - weight()[:, ~kept] @ rows[:, ~kept].mean(0)).square().sum(1).mean()
    assert error < float(plain)


def test_all_kept_is_the_layer_itself_and_a_copy_costs_nothing() -> None:
    rows = sample()
    whole = compensate(weight(), moments_of(rows), torch.ones(ENTRIES, dtype=torch.bool))
    assert torch.allclose(whole.weight, weight(), atol=1e-4)
    assert whole.error < 1e-4
    rows[:, PIXELS : 2 * PIXELS] = rows[:, :PIXELS]
    scale = float((rows @ weight().T).var(0).sum())
    for gone in (0, 1):
        kept = kept_entries([channel for channel in range(CHANNELS) if channel != gone])
        assert compensate(weight(), moments_of(rows), kept).error < 1e-6 * scale


def test_uncorrelated_channels_change_only_the_bias() -> None:
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64) + torch.tensor([0.5, 2.0])
    one = torch.tensor([[3.0, 5.0]], dtype=torch.float64)
    found = compensate(one, moments_of(signs), torch.tensor([True, False]))
    assert found.weight.tolist() == [[pytest.approx(3.0, rel=1e-6)]]
    assert found.bias.tolist() == [pytest.approx(5.0 * 2.0, rel=1e-6)]
    assert found.error == pytest.approx(25.0, rel=1e-6)


def test_rescaling_keeps_mean_and_variance_and_costs_less_than_twice() -> None:
    rows, kept = sample(), kept_entries([1, 4])
    outputs = rows @ weight().T
    found = compensate(weight(), moments_of(rows), kept)
    scaled = rescaled(found, weight(), moments_of(rows), kept)
    shown = rows[:, kept] @ scaled.weight.T + scaled.bias
    assert torch.allclose(shown.mean(0), outputs.mean(0), rtol=1e-8)
    assert torch.allclose(shown.var(0, correction=0), outputs.var(0, correction=0), rtol=1e-6)
    assert bool((scaled.weight.norm(dim=1) >= found.weight.norm(dim=1) * (1 - 1e-9)).all())
    measured = float((outputs - shown).square().sum(1).mean())
    assert scaled.error == pytest.approx(measured, rel=1e-6)
    assert found.error <= scaled.error < 2 * found.error


def test_gains_of_the_greedy_order_are_drops_of_the_residual() -> None:
    rows = sample()
    outputs, moments = rows @ weight().T, moments_of(rows)
    order, gains = greedy_order(weight(), moments.covariance, CHANNELS)
    assert sorted(order) == list(range(CHANNELS))
    total = float(((weight() @ moments.covariance) * weight()).sum())
    assert sum(gains) == pytest.approx(total, rel=1e-6)
    residual = total
    for step in range(1, CHANNELS + 1):
        _, _, error = least_squares(rows, outputs, kept_entries(order[:step]))
        assert gains[step - 1] == pytest.approx(residual - error, rel=1e-4, abs=1e-6 * total)
        others = [
            least_squares(rows, outputs, kept_entries([*order[: step - 1], other]))[2]
            for other in range(CHANNELS)
            if other not in order[: step - 1]
        ]
        assert error == pytest.approx(min(others), rel=1e-9, abs=1e-9 * total)
        residual = error


def test_moments_of_layers_are_those_of_their_unfolded_inputs() -> None:
    network = (
        nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 4, 5)).double().train()
    )
    images = torch.randn(6, 2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = input_moments(network, ["0", "3"], images.split(4))
    padded = nn.functional.pad(images, (1, 1, 1, 1))
    patches = [
        padded[image, :, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3].flatten()
        for image in range(6)
        for row in range(2)
        for column in range(2)
    ]
    expected = moments_of(torch.stack(patches))
    assert found["0"].count == 24
    assert torch.allclose(found["0"].mean, expected.mean)
    assert torch.allclose(found["0"].covariance, expected.covariance)
    assert found["3"].count == 6
    assert network.training
