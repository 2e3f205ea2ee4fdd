"""The search for coefficients: never worse than equal ones, seeded, and counted."""

from __future__ import annotations

import pytest

from trainables.errors import NonFiniteError
from trainables.pruning.coefficient_search import Coefficients, search_coefficients

TARGET = (0.9, 0.1, 0.5, 0.3)


def distance(coefficients: Coefficients) -> float:
    return sum((one - other) ** 2 for one, other in zip(coefficients, TARGET, strict=True))


def test_changes_of_one_place_find_the_optimum_that_random_starts_miss() -> None:
    started, _ = search_coefficients(4, distance, starts=30, misses=1, seed=0)
    found, loss = search_coefficients(4, distance, starts=30, misses=200, seed=0)
    assert loss == distance(found) < 0.01 < distance(started)
    assert search_coefficients(4, distance, starts=30, misses=200, seed=0) == (found, loss)
    assert search_coefficients(4, distance, starts=30, misses=200, seed=1)[0] != found
    assert all(0 < one <= 1 for one in found)


def test_equal_coefficients_stay_if_nothing_is_better() -> None:
    tried: list[Coefficients] = []

    def loss_of(coefficients: Coefficients) -> float:
        tried.append(coefficients)
        return float(len(set(coefficients)) > 1)

    assert search_coefficients(3, loss_of, starts=10, misses=7, seed=0) == ((1.0, 1.0, 1.0), 0.0)
    assert len(tried) == 1 + 10 + 7  # fewer than 5 layers change in one place
    tried.clear()
    search_coefficients(30, loss_of, starts=10, misses=7, seed=0)
    assert len(tried) == 1 + 10 + 3 * 7
    changes = [sum(one != 1 for one in each) for each in tried[11:]]
    assert max(changes[:7]) <= 3
    assert max(changes[7:14]) <= 2
    assert set(changes[14:]) == {1}


def test_losses_that_are_not_finite_never_win() -> None:
    losses = iter([1.0, 0.5, float("nan"), 2.0, float("inf"), 3.0])
    assert search_coefficients(1, lambda coefficients: next(losses), starts=4, misses=1, seed=0)[1] == 0.5
    with pytest.raises(NonFiniteError, match=r"spdy\.samples"):
        search_coefficients(2, lambda coefficients: float("nan"), starts=3, misses=2, seed=0)
