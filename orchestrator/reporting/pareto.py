"""The Pareto front of several objectives."""

from __future__ import annotations

from collections.abc import Sequence


def pareto_front(values: Sequence[Sequence[float]], directions: Sequence[str]) -> list[int]:
    """Positions of the points that no other dominates, ascending; equal points are all on the front.

    A point dominates another if it is at least as good in every objective and better in one.

    Args:
        directions: max or min, for each objective.
    """
    signs = [1 if direction == "max" else -1 for direction in directions]
    points = [tuple(sign * value for sign, value in zip(signs, row, strict=True)) for row in values]
    # Whatever dominates a point comes before it in this order, and is on the front or dominated by what is.
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda index: points[index], reverse=True):
        if not any(_dominates(points[other], points[index]) for other in front):
            front.append(index)
    return sorted(front)


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return one != other and all(left >= right for left, right in zip(one, other, strict=True))
