"""Ranges of numbers on an axis."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.spec.ranges import Range, axis_text


@pytest.mark.parametrize(
    ("axis", "values"),
    [
        (Range(0, 3), (0, 1, 2, 3)),
        (Range(1, 10, step=4), (1, 5, 9)),
        (Range(1, 4, log=True), (1, 2, 3, 4)),
        (Range(0.1, 0.5, step=0.2), (0.1, 0.3, 0.5)),
        (Range(0.1, 0.6, step=0.2), (0.1, 0.3, 0.5)),
        (Range(0.1, 0.5), None),
        (Range(1e-4, 0.1, log=True), None),
    ],
)
def test_values_are_all_of_a_range_that_is_not_continuous(axis: Range, values: Any) -> None:
    assert axis.values() == values


@pytest.mark.parametrize(
    ("axis", "inside", "outside"),
    [
        (Range(0, 3), [0, 2, 3], [-1, 4, 1.5, True, "2", None, float("nan")]),
        (Range(1, 10, step=4), [1, 5, 9], [2, 10, 13]),
        (Range(0.1, 0.9, step=0.1), [0.1, 0.3, 0.7, 0.9], [0.15, 0.95]),
        (Range(1e-4, 0.1, log=True), [1e-4, 0.05, 0.1], [0, 0.2]),
    ],
)
def test_contains_is_true_for_values_of_the_range(axis: Range, inside: list[Any], outside: list[Any]) -> None:
    assert [value for value in inside + outside if axis.contains(value)] == inside
    assert all(axis.contains(value) for value in axis.values() or ())


def test_range_is_hashable_and_equal_by_its_numbers() -> None:
    assert len({Range(0, 3), Range(0, 3), Range(0, 3, step=1)}) == 2


def test_text_of_an_axis_is_that_of_the_file() -> None:
    assert axis_text(Range(1, 50, log=True)) == "{min: 1, max: 50, log: true}"
    assert axis_text(Range(0.1, 0.5, step=0.1)) == "{min: 0.1, max: 0.5, step: 0.1}"
    assert axis_text((0.9, "none", None)) == "0.9, none, None"
    assert Range(1, 5, step=2).to_mapping() == {"min": 1, "max": 5, "step": 2}
