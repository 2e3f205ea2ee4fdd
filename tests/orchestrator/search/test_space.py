"""Axes as a sampler sees them, and as the sweep file does."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from orchestrator.search.space import Axis, Space
from orchestrator.spec.ranges import Range

numbers = st.one_of(st.integers(-1000, 1000), st.floats(-1000, 1000, allow_nan=False))
lists = st.one_of(
    st.lists(numbers, min_size=1, max_size=8, unique=True),
    st.lists(st.one_of(st.text(max_size=3), st.booleans()), min_size=1, max_size=5, unique=True),
).map(tuple)


@st.composite
def ranges(draw: st.DrawFn) -> Range:
    if draw(st.booleans()):
        low = draw(st.integers(1, 50))
        high = low + draw(st.integers(1, 50))
        step = draw(st.one_of(st.none(), st.integers(1, high - low)))
        return Range(low, high, step=step, log=step is None and draw(st.booleans()))
    low_f, width = draw(st.floats(0.001, 10)), draw(st.floats(0.1, 10))
    steps = draw(st.one_of(st.none(), st.integers(1, 9)))
    grid = None if steps is None else round(width / steps, 3)
    return Range(round(low_f, 3), round(low_f, 3) + width, step=grid, log=grid is None and draw(st.booleans()))


def test_list_of_numbers_is_ordered_for_the_sampler() -> None:
    axis = Axis("a", (100, 1, 10))
    assert axis.distribution() == IntDistribution(0, 2)
    assert [axis.decode(position) for position in range(3)] == [1, 10, 100]
    assert [axis.encode(value) for value in axis.values] == [2, 0, 1]  # type: ignore[union-attr]
    assert (axis.first, axis.size) == (100, 3)


@pytest.mark.parametrize("values", [("b", "a"), (True, False), (1, "a")])
def test_list_of_anything_else_is_unordered_and_keeps_its_order(values: tuple[Any, ...]) -> None:
    axis = Axis("a", values)
    assert axis.distribution() == CategoricalDistribution([0, 1])
    assert [axis.decode(position) for position in (0, 1)] == list(values)


@pytest.mark.parametrize(
    ("axis", "distribution", "size"),
    [
        (Range(1, 9), IntDistribution(1, 9), 9),
        (Range(1, 9, step=3), IntDistribution(1, 7, step=3), 3),
        (Range(0.1, 0.35, step=0.1), FloatDistribution(0.1, 0.3, step=0.1), 3),
        (Range(1, 100, log=True), IntDistribution(1, 100, log=True), 100),
        (Range(0.1, 0.4, step=0.1), FloatDistribution(0.1, 0.4, step=0.1), 4),
        (Range(0.1, 1.0, log=True), FloatDistribution(0.1, 1.0, log=True), math.inf),
    ],
)
@pytest.mark.filterwarnings("error")
def test_range_is_a_distribution_of_its_type(axis: Range, distribution: Any, size: float) -> None:
    assert Axis("a", axis).distribution() == distribution
    assert Axis("a", axis).size == size


@given(st.one_of(lists, ranges()), st.randoms(use_true_random=False))
@settings(max_examples=150)
def test_encode_inverts_decode(values: Any, random: Any) -> None:
    axis = Axis("a", values)
    listed = values.values() if isinstance(values, Range) else values
    value = random.choice(listed) if listed is not None else random.uniform(values.min, values.max)
    assert axis.contains(value)
    if listed is None:
        value = axis.decode(value)  # with four digits
        assert axis.contains(value)
    decoded = axis.decode(axis.encode(value))
    assert (decoded, type(decoded)) == (value, type(value))


@given(st.floats(0.001, 1))
def test_value_of_a_continuous_range_has_four_digits(number: float) -> None:
    axis = Axis("a", Range(0.0012345, 1))
    inside = max(number, 0.0012345)
    value = axis.decode(inside)
    assert isinstance(value, float)
    assert value == pytest.approx(inside, rel=5e-4)
    assert axis.contains(value)
    assert value in (0.0012345, float(f"{value:.4g}"))


@given(st.one_of(lists, ranges()))
@settings(max_examples=50)
def test_whatever_a_distribution_contains_decodes_into_the_axis(values: Any) -> None:
    axis = Axis("a", values)
    distribution = axis.distribution()
    if isinstance(distribution, CategoricalDistribution):
        parameters: list[Any] = list(distribution.choices)
    else:
        assert isinstance(distribution, IntDistribution | FloatDistribution)
        parameters = [distribution.low, distribution.high]
    for parameter in parameters:
        assert axis.contains(axis.decode(parameter))


def test_value_outside_an_axis_has_no_parameter() -> None:
    for axis, outside in ((Axis("a", Range(1, 9, step=2)), 2), (Axis("a", (1, 2)), 3), (Axis("a", Range(0.5, 1.0)), 1.5)):
        assert not axis.contains(outside)
        with pytest.raises(ValueError, match=r"is outside \{min|not in tuple"):
            axis.encode(outside)


def test_space_is_the_product_of_its_axes() -> None:
    space = Space((Axis("a", (3, 1)), Axis("b", Range(1, 3)), Axis("c", ("x", "y"))))
    expected = [dict(zip("abc", row, strict=True)) for row in itertools.product((3, 1), (1, 2, 3), ("x", "y"))]
    assert list(space.grid()) == expected
    assert space.size == len(expected)
    assert space.first() == {"a": 3, "b": 1, "c": "x"}
    for values in expected:
        assert space.decode(space.encode(values)) == values
        assert space.contains(values)
    assert not space.contains({"a": 3, "b": 1})
    assert not space.contains({"a": 3, "b": 4, "c": "x"})


def test_space_with_a_continuous_range_is_infinite() -> None:
    assert Space((Axis("a", (1, 2)), Axis("b", Range(0.1, 1.0)))).size == math.inf
