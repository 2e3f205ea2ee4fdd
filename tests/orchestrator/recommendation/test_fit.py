"""The fit of configurations and seeds, against least squares by numpy."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from orchestrator.recommendation.fit import Values, fit


def by_least_squares(values: Values) -> tuple[dict[int, float], float, int]:
    """Means, residual deviation and degrees of freedom of value = configuration + seed, by the pseudoinverse."""
    numbers = list(values)
    seeds = sorted({seed for row in values.values() for seed in row})
    rows = [(number, seed, value) for number, row in values.items() for seed, value in row.items()]
    design = np.zeros((len(rows), len(numbers) + len(seeds)))
    for index, (number, seed, _) in enumerate(rows):
        design[index, numbers.index(number)] = design[index, len(numbers) + seeds.index(seed)] = 1
    target = np.array([value for *_, value in rows])
    parts, *_ = np.linalg.lstsq(design, target, rcond=None)
    freedom = len(rows) - int(np.linalg.matrix_rank(design))
    squares = float(((target - design @ parts) ** 2).sum())
    centre = parts[len(numbers) :].mean()
    means = {number: float(parts[index] + centre) for index, number in enumerate(numbers)}
    return means, math.sqrt(squares / freedom) if freedom else 0.0, freedom


def draw(seed: int, rows: dict[int, list[int]]) -> Values:
    numbers = random.Random(seed)
    effects = [numbers.gauss(0, 2) for _ in range(10)]
    return {number: {one: number + effects[one] + numbers.gauss(0, 1) for one in seeds} for number, seeds in rows.items()}


SHAPES = {
    "complete": {number: [0, 1, 2] for number in range(5)},
    "a failed trial": {0: [0, 1, 2], 1: [0, 2], 2: [0, 1, 2]},
    "staged seeds": {0: [0, 1, 2, 3, 4], 1: [0, 1, 2], 2: [0], 3: [0]},
    "linked through others": {0: [0, 1], 1: [1, 2], 2: [2, 3]},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_fit_is_that_of_least_squares(shape: str) -> None:
    values = draw(1, SHAPES[shape])
    means, deviation, freedom = by_least_squares(values)
    fitted = fit(values)
    assert fitted.noise.freedom == freedom
    assert fitted.means == pytest.approx(means, abs=1e-6)
    assert fitted.noise.deviation == pytest.approx(deviation, abs=1e-6)


def test_unlinked_configurations_are_compared_by_their_own_means() -> None:
    values = {0: {0: 1.0, 1: 3.0}, 1: {2: 5.0, 3: 5.0}}
    fitted = fit(values)
    assert fitted.means == {0: 2.0, 1: 5.0}
    assert (fitted.noise.freedom, fitted.noise.deviation) == (2, 1.0)  # the seeds' part is noise here
    assert fitted.seed_variance == 0.0


def test_one_seed_shows_no_noise() -> None:
    fitted = fit({0: {0: 1.0}, 1: {0: 2.0}})
    assert (fitted.leader, fitted.noise.freedom) == (1, 0)
    assert fitted.reach(0, 1, 0.05) == math.inf


def test_reach_is_that_of_student() -> None:
    values = draw(2, SHAPES["complete"])
    fitted = fit(values)
    # 8 degrees of freedom: t = 1.860 at 5 % on one side.
    assert fitted.reach(0, 1, 0.05) == pytest.approx(1.8595 * fitted.noise.deviation * math.sqrt(2 / 3), rel=1e-3)


def test_seed_variance_is_what_the_seeds_add() -> None:
    numbers = random.Random(0)
    effects = [numbers.gauss(0, 3) for _ in range(200)]
    values = {number: {seed: effect + numbers.gauss(0, 1) for seed, effect in enumerate(effects)} for number in range(4)}
    assert fit(values).seed_variance == pytest.approx(9, rel=0.2)
    without = {number: {seed: numbers.gauss(0, 1) for seed in range(200)} for number in range(4)}
    assert fit(without).seed_variance < 0.1
