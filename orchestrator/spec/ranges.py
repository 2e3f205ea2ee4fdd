"""A range of numbers on an axis of `search`, in place of a list of values."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

TOLERANCE = 1e-9  # of a multiple of the step, which floats do not hit exactly


@dataclass(frozen=True, slots=True)
class Range:
    """All numbers from `min` to `max`, both included: integers if both bounds are.

    With `step` only min, min + step, ...; with `log` they are to be searched evenly in their logarithm. Whether the bounds
    fit together is checked by search_constraints.py.
    """

    min: float
    max: float
    step: float | None = None
    log: bool = False

    @property
    def is_integer(self) -> bool:
        return isinstance(self.min, int) and isinstance(self.max, int)

    def contains(self, value: Any) -> bool:
        """Whether the value is a number of the range."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.min <= value <= self.max:
            return False
        if self.is_integer and not isinstance(value, int):
            return False
        if self.step is None:
            return True
        if self.is_integer:
            return (value - self.min) % self.step == 0
        steps = (value - self.min) / self.step
        return abs(steps - round(steps)) < TOLERANCE

    def values(self) -> tuple[Any, ...] | None:
        """All values of a range of integers or with a step, ascending; None if it is continuous."""
        if isinstance(self.min, int) and isinstance(self.max, int):
            return tuple(range(self.min, self.max + 1, int(self.step or 1)))
        if self.step is None:
            return None
        low, high, step = (Decimal(repr(number)) for number in (self.min, self.max, self.step))  # 0.1 + 2 * 0.1 is 0.3
        return tuple(float(low + index * step) for index in range(int((high - low) / step) + 1))

    def to_mapping(self) -> dict[str, Any]:
        """The range as in a sweep file."""
        options: dict[str, Any] = {"step": self.step} if self.step is not None else {}
        return {"min": self.min, "max": self.max} | options | ({"log": True} if self.log else {})

    def __str__(self) -> str:
        return f"{{{', '.join(f'{key}: {str(value).lower()}' for key, value in self.to_mapping().items())}}}"


Axis = tuple[Any, ...] | Range


def axis_text(axis: Axis) -> str:
    """The values of an axis for people."""
    return str(axis) if isinstance(axis, Range) else ", ".join(map(str, axis))
