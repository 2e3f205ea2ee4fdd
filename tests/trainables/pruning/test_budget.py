"""The program against all combinations there are; the budget is never exceeded."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from trainables.pruning.budget import InfeasibleBudgetError, cheapest_options

LAYERS, OPTIONS = 4, 5


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    generator = np.random.default_rng(seed)
    times = np.sort(generator.uniform(0.1, 1.0, (LAYERS, OPTIONS)))[:, ::-1]  # more sparsity is faster and costs more
    costs = np.sort(generator.uniform(0.0, 1.0, (LAYERS, OPTIONS)))
    return times, costs, float(generator.uniform(times.min(1).sum() * 1.02, times.max(1).sum()))


def brute_force(times: np.ndarray, costs: np.ndarray, budget: float) -> float:
    return min(
        float(sum(costs[layer][option] for layer, option in enumerate(choice)))
        for choice in itertools.product(range(OPTIONS), repeat=LAYERS)
        if sum(times[layer][option] for layer, option in enumerate(choice)) <= budget
    )


def total(values: np.ndarray, choice: list[int]) -> float:
    return float(sum(values[layer][option] for layer, option in enumerate(choice)))


def test_choice_is_the_best_of_all_and_within_the_budget() -> None:
    for seed in range(100):
        times, costs, budget = drawn(seed)
        buckets = 2000
        choice = cheapest_options(times.tolist(), costs.tolist(), budget, buckets)
        assert total(times, choice) <= budget
        width = budget / buckets
        rounded = np.ceil(times / width) * width  # the same rounding, without a program
        assert total(costs, choice) == pytest.approx(brute_force(rounded, costs, budget), abs=1e-12)
        assert brute_force(times, costs, budget) <= total(costs, choice) + 1e-12
        assert total(costs, choice) <= brute_force(times, costs, budget - LAYERS * width) + 1e-12


@pytest.mark.parametrize("buckets", [20, 50, 200])
def test_coarse_buckets_do_not_exceed_the_budget_either(buckets: int) -> None:
    for seed in range(100):
        times, costs, budget = drawn(seed)
        try:
            choice = cheapest_options(times.tolist(), costs.tolist(), budget, buckets)
        except InfeasibleBudgetError:
            assert np.ceil(times.min(1) / (budget / buckets)).sum() > buckets
            continue
        assert total(times, choice) <= budget * (1 + 1e-12)


def test_costs_fall_with_the_budget_and_scale_changes_nothing() -> None:
    times, costs, _ = drawn(0)
    budgets = np.linspace(times.min(1).sum() * 1.01, times.max(1).sum() * 1.01, 20)
    choices = [cheapest_options(times.tolist(), costs.tolist(), float(budget)) for budget in budgets]
    found = [total(costs, choice) for choice in choices]
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(found))
    assert choices[-1] == [0] * LAYERS  # the whole time: all dense
    scaled = [cheapest_options(times.tolist(), (7 * costs).tolist(), float(budget)) for budget in budgets]
    assert scaled == choices


def test_a_dominated_option_changes_nothing() -> None:
    times, costs, budget = drawn(3)
    choice = cheapest_options(times.tolist(), costs.tolist(), budget)
    with_worse = [[*row, row[-1] * 1.5] for row in times.tolist()], [[*row, row[-1] * 1.5] for row in costs.tolist()]
    assert cheapest_options(*with_worse, budget) == choice


def test_a_budget_that_cannot_be_met_is_an_error() -> None:
    times, costs, _ = drawn(0)
    least = float(times.min(1).sum())
    with pytest.raises(InfeasibleBudgetError, match="the layers take at least") as raised:
        cheapest_options(times.tolist(), costs.tolist(), least * 0.99)
    assert raised.value.least == pytest.approx(least)
    with pytest.raises(InfeasibleBudgetError):
        cheapest_options(times.tolist(), costs.tolist(), 0.0)


def test_a_budget_that_rounding_up_exceeds_is_an_error_too() -> None:
    with pytest.raises(InfeasibleBudgetError):
        cheapest_options([[0.6], [0.4]], [[1.0], [1.0]], 1.0, buckets=2)
    assert cheapest_options([[0.6], [0.4]], [[1.0], [1.0]], 1.0, buckets=5) == [0, 0]
