"""One look at a race, against a two-way analysis of variance written out and the quantiles of scipy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from orchestrator.search.racing import RaceRule, adjusted_means, look

RULE = RaceRule(confidence=0.95, looks=3, comparisons=4, chance=0.2)
tables = st.integers(2, 6).flatmap(
    lambda contenders: st.integers(2, 6).flatmap(
        lambda seeds: st.lists(
            st.lists(st.floats(0, 1), min_size=seeds, max_size=seeds), min_size=contenders, max_size=contenders
        )
    )
)


def residual(rows: Sequence[Sequence[float]]) -> tuple[float, int]:
    """Mean square of the residual of a two-way table without replication, as total - rows - columns, and its freedom."""
    table = np.array(rows)
    contenders, seeds = table.shape
    grand = table.mean()
    total = ((table - grand) ** 2).sum()
    between_rows = seeds * ((table.mean(axis=1) - grand) ** 2).sum()
    between_columns = contenders * ((table.mean(axis=0) - grand) ** 2).sum()
    freedom = (contenders - 1) * (seeds - 1)
    return max(0.0, total - between_rows - between_columns) / freedom, freedom


@given(tables)
@settings(max_examples=100)
def test_bounds_are_those_of_a_two_way_analysis_of_variance(rows: list[list[float]]) -> None:
    values = dict(enumerate(rows))
    seen = look(values, RULE)
    square, freedom = residual(rows)
    reach = stats.t.ppf(1 - 0.05 / 3 / 4, freedom) * math.sqrt(2 * square / len(rows[0]))
    means = np.array(rows).mean(axis=1)
    assert means[seen.leader] == pytest.approx(means.max(), abs=1e-12)
    assert set(seen.bounds) == set(values) - {seen.leader}
    for number, (low, high) in seen.bounds.items():
        difference = means[number] - means[seen.leader]
        assert low == pytest.approx(difference - reach, abs=1e-6)
        assert high == pytest.approx(difference + reach, abs=1e-6)
    assert set(seen.worse) == {number for number, (_, high) in seen.bounds.items() if high < 0}


def test_two_contenders_are_compared_by_the_paired_t_test() -> None:
    first, second = [0.90, 0.93, 0.91, 0.95], [0.89, 0.90, 0.90, 0.93]
    p = stats.ttest_rel(first, second, alternative="greater").pvalue
    for confidence, is_worse in ((1 - p * 1.01, True), (1 - p * 0.99, False)):
        rule = RaceRule(confidence=confidence, looks=1, comparisons=1)
        assert look({0: first, 1: second}, rule).worse == ((1,) if is_worse else ())


def test_what_a_seed_does_to_all_alike_does_not_matter() -> None:
    values = {0: [0.9, 0.91, 0.92], 1: [0.89, 0.902, 0.909], 2: [0.8, 0.81, 0.825]}
    shifts = (0.05, -0.3, 0.1)
    shifted = {number: [value + shift for value, shift in zip(row, shifts, strict=True)] for number, row in values.items()}
    one, other = look(values, RULE), look(shifted, RULE)
    assert (one.leader, one.worse, one.behind) == (other.leader, other.worse, other.behind)
    assert one.bounds[1] == pytest.approx(other.bounds[1])


def test_level_is_shared_among_comparisons_and_looks() -> None:
    assert RULE.level == pytest.approx(0.05 / 12)
    assert RaceRule(confidence=0.9, looks=0, comparisons=0).level == pytest.approx(0.1)


def test_behind_is_decided_at_the_chance_of_one_comparison() -> None:
    """A contender is behind where its probability to be better, given its difference and the noise, is below the chance."""
    rows = [[0.90, 0.91, 0.93], [0.89, 0.915, 0.921], [0.885, 0.905, 0.925]]
    square, freedom = residual(rows)
    means = np.array(rows).mean(axis=1)
    probability = stats.t.cdf((means[2] - means[0]) / math.sqrt(2 * square / 3), freedom)
    for chance, behind in ((probability * 1.01, True), (probability * 0.99, False)):
        seen = look(dict(enumerate(rows)), RaceRule(confidence=0.99, looks=3, comparisons=2, chance=chance))
        assert seen.worse == ()
        assert (2 in seen.behind) is behind


@pytest.mark.parametrize(("contenders", "kept"), [(1, 1), (2, 2), (3, 2), (4, 2), (5, 3), (9, 5)])
def test_one_seed_shows_no_noise_and_the_better_half_goes_on(contenders: int, kept: int) -> None:
    seen = look({number: [0.5 + 0.01 * number] for number in range(contenders)}, RULE)
    assert seen.leader == contenders - 1
    assert seen.worse == ()
    assert set(seen.behind) == set(range(contenders - kept))
    assert all(bounds == (-math.inf, math.inf) for bounds in seen.bounds.values())


def test_leader_among_equals_is_the_first() -> None:
    for values in ({3: [0.5], 1: [0.5], 2: [0.5]}, {3: [0.5, 0.6], 1: [0.6, 0.5], 2: [0.5, 0.6]}):
        assert look(values, RULE).leader == 1


def test_equal_values_are_neither_worse_nor_behind() -> None:
    seen = look({0: [0.5, 0.5], 1: [0.5, 0.5]}, RULE)
    assert (seen.worse, seen.behind, dict(seen.bounds)) == ((), (), {1: (0.0, 0.0)})


def test_lone_contender_leads() -> None:
    seen = look({4: [0.5, 0.6]}, RULE)
    assert (seen.leader, dict(seen.bounds), seen.worse, seen.behind) == (4, {}, (), ())


def test_equal_contender_is_called_worse_at_the_level() -> None:
    generator = np.random.default_rng(0)
    rule = RaceRule(confidence=0.95, looks=1, comparisons=1)
    draws = [generator.normal(size=(2, 5)).tolist() for _ in range(2000)]
    errors = sum(1 in look(dict(enumerate(rows)), rule).worse for rows in draws)
    assert errors / 2000 == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / 2000))


@given(st.lists(st.sets(st.integers(0, 4), min_size=1), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_adjusted_means_are_a_least_squares_fit(designs: list[set[int]], random: Any) -> None:
    """Every configuration has seed 0 too, so that the design is connected."""
    values = {number: {seed: random.random() for seed in sorted({0} | seeds)} for number, seeds in enumerate(designs)}
    seeds = sorted({seed for row in values.values() for seed in row})
    cells = [(number, seed, value) for number, row in values.items() for seed, value in row.items()]
    matrix = np.zeros((len(cells) + 1, len(values) + len(seeds)))
    for index, (number, seed, _) in enumerate(cells):
        matrix[index, number] = matrix[index, len(values) + seeds.index(seed)] = 1
    matrix[-1, len(values) :] = 1  # the parts of the seeds sum to 0
    fit = np.linalg.lstsq(matrix, np.array([*(value for *_, value in cells), 0.0]), rcond=None)[0]
    assert list(adjusted_means(values).values()) == pytest.approx(fit[: len(values)].tolist(), abs=2e-2)
