"""The Pareto front, against its definition."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.reporting.pareto import pareto_front

DIRECTIONS = st.lists(st.sampled_from(["max", "min"]), min_size=1, max_size=3)


def front_by_definition(points: list[list[int]], directions: list[str]) -> list[int]:
    """Compares each point with each other."""

    def dominates(one: list[int], other: list[int]) -> bool:
        pairs = list(zip(one, other, directions, strict=True))
        as_good = all(left >= right if direction == "max" else left <= right for left, right, direction in pairs)
        return as_good and one != other

    return [index for index, point in enumerate(points) if not any(dominates(other, point) for other in points)]


@given(st.data(), DIRECTIONS)
def test_front_is_that_of_the_definition(data: st.DataObject, directions: list[str]) -> None:
    point = st.lists(st.integers(0, 4), min_size=len(directions), max_size=len(directions))
    points = data.draw(st.lists(point, max_size=12))
    assert pareto_front(points, directions) == front_by_definition(points, directions)


def test_equal_points_are_all_on_the_front() -> None:
    assert pareto_front([(1, 2), (1, 2), (0, 2)], ["max", "min"]) == [0, 1]
