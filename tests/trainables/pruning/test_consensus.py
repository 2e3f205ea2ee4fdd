"""The terms of the loss against finite differences and their bounds, and the order of consensus."""

from __future__ import annotations

import pytest
import torch

from trainables.pruning.consensus import consensus_scores, gate_activity, gate_polarization

COUNT = 8


def test_polarization_is_within_a_quarter_and_zero_for_unanimous_gates_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        means = torch.rand(COUNT, generator=generator, dtype=torch.float64)
        assert 0 < float(gate_polarization(means)) <= 0.25
        assert float(gate_polarization(means.round())) == 0
        one = means.round()
        one[3] = 0.5
        assert float(gate_polarization(one)) == pytest.approx(0.25 / COUNT)
    assert float(gate_polarization(torch.full((COUNT,), 0.5))) == 0.25


def test_gradients_are_those_of_finite_differences_and_of_the_closed_form() -> None:
    means = torch.rand(COUNT, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    variable = means.clone().requires_grad_()
    (of_polarization,) = torch.autograd.grad(gate_polarization(variable), [variable])
    (of_activity,) = torch.autograd.grad(gate_activity(variable, 0.3), [variable])
    assert of_polarization.tolist() == pytest.approx(((1 - 2 * means) / COUNT).tolist())
    assert of_activity.tolist() == pytest.approx([2 * (float(means.mean()) - 0.3) / COUNT] * COUNT)
    for index in range(COUNT):
        step = torch.zeros(COUNT, dtype=torch.float64)
        step[index] = 1e-6
        slope = float(gate_polarization(means + step) - gate_polarization(means - step)) / 2e-6
        assert float(of_polarization[index]) == pytest.approx(slope, abs=1e-8)


def test_fewest_images_go_first_and_among_equals_the_lowest_value() -> None:
    open_units, mean_z = torch.tensor([3, 0, 3, 1, 0, 7]), torch.tensor([0.2, -5.0, 0.1, -2.0, -1.0, 40.0])
    scores = consensus_scores(open_units, mean_z)
    assert scores.argsort().tolist() == [1, 4, 3, 2, 0, 5]
    assert len(set(scores.tolist())) == 6
