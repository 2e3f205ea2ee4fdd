"""The space of configurations: axes that are lists or ranges, as Optuna's distributions and as values of the sweep file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from orchestrator.spec.ranges import Range

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Values = Mapping[str, Any]
DIGITS = 4  # of a value from a continuous range: people read it, and may write it into a sweep file


def values_text(values: Values) -> str:
    """The values of a configuration, for people."""
    return ", ".join(f"{key} {value}" for key, value in values.items())


@dataclass(frozen=True, slots=True)
class Axis:
    """One searched key.

    A list of numbers is ordered: the sampler sees the positions of its sorted values, so that neighbours in the list are
    neighbours for the sampler, whatever the distance between them.
    """

    key: str
    values: tuple[Any, ...] | Range

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if isinstance(self.values, Range):
            low, high, step, log = self.values.min, self.values.max, self.values.step, self.values.log
            if step is not None:
                high = (self.values.values() or (high,))[-1]  # the last multiple of the step, which Optuna demands
            if self.is_integer:
                return IntDistribution(int(low), int(high), log=log, step=int(step or 1))
            return FloatDistribution(low, high, log=log, step=step)
        if self._is_ordered:
            return IntDistribution(0, len(self.values) - 1)
        return CategoricalDistribution(list(range(len(self.values))))

    def decode(self, parameter: Any) -> Any:
        """The value of the sweep file for a parameter of the sampler; of a continuous range with DIGITS digits."""
        if isinstance(self.values, Range):
            return int(parameter) if self.is_integer else self._readable(float(parameter), self.values)
        return self._listed[int(parameter)]

    def _readable(self, number: float, numbers: Range) -> float:
        listed = numbers.values()
        if listed is not None:  # multiples of a step, without the errors of a sum
            return float(min(listed, key=lambda one: abs(one - number)))
        return float(min(max(float(f"{number:.{DIGITS}g}"), numbers.min), numbers.max))

    def encode(self, value: Any) -> Any:
        """The sampler's parameter for a value. Raises ValueError if the axis does not contain it."""
        if isinstance(self.values, Range):
            if not self.values.contains(value):
                raise ValueError(f"{self.key}: {value!r} is outside {self.values}")
            return value
        return self._listed.index(value)

    def contains(self, value: Any) -> bool:
        """Whether the axis has this value."""
        return self.values.contains(value) if isinstance(self.values, Range) else value in self.values

    @property
    def is_integer(self) -> bool:
        """Whether all values of a range are whole numbers."""
        return isinstance(self.values, Range) and self.values.is_integer

    @property
    def first(self) -> Any:
        """The first value of a list, the smallest of a range."""
        return self.values.min if isinstance(self.values, Range) else self.values[0]

    @property
    def last(self) -> Any:
        """The last value of a list, the largest of a range."""
        return self.values.max if isinstance(self.values, Range) else self.values[-1]

    @property
    def size(self) -> float:
        """The number of values; infinite for a continuous range."""
        values = self._all_values()
        return math.inf if values is None else len(values)

    def _all_values(self) -> Sequence[Any] | None:
        return self.values.values() if isinstance(self.values, Range) else self.values

    @property
    def _is_ordered(self) -> bool:
        return all(isinstance(value, int | float) and not isinstance(value, bool) for value in self.values)  # type: ignore[union-attr]

    @property
    def _listed(self) -> tuple[Any, ...]:
        assert not isinstance(self.values, Range)
        return tuple(sorted(self.values)) if self._is_ordered else self.values


@dataclass(frozen=True, slots=True)
class Space:
    """The axes of a configuration, in the order of the sweep file."""

    axes: tuple[Axis, ...]

    @property
    def size(self) -> float:
        """The number of configurations; infinite with a continuous range."""
        return math.prod(axis.size for axis in self.axes)

    def first(self) -> dict[str, Any]:
        """The configuration of each axis's first value."""
        return {axis.key: axis.first for axis in self.axes}

    def corners(self) -> Iterator[dict[str, Any]]:
        """The configurations of the first and last values of the axes, the last axis fastest."""
        ends = (dict.fromkeys((axis.first, axis.last)) for axis in self.axes)
        for row in product(*ends):
            yield dict(zip((axis.key for axis in self.axes), row, strict=True))

    def distributions(self) -> dict[str, BaseDistribution]:
        return {axis.key: axis.distribution() for axis in self.axes}

    def decode(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        return {axis.key: axis.decode(parameters[axis.key]) for axis in self.axes}

    def encode(self, values: Values) -> dict[str, Any]:
        """The sampler's parameters. Raises ValueError if the space does not contain the configuration."""
        return {axis.key: axis.encode(values[axis.key]) for axis in self.axes}

    def contains(self, values: Values) -> bool:
        return all(axis.key in values and axis.contains(values[axis.key]) for axis in self.axes)

    def grid(self) -> Iterator[dict[str, Any]]:
        """All configurations of a finite space, the last axis fastest."""
        columns = [axis._all_values() for axis in self.axes]
        for row in product(*(column for column in columns if column is not None)):
            yield dict(zip((axis.key for axis in self.axes), row, strict=True))
