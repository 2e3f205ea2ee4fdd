"""The settings of a search that apply to each of its groups."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.search.racing import CHANCE
from orchestrator.spec.search_schema import ACCURACY

POINTS = 0.01  # the unit of differences of accuracy for people


@dataclass(frozen=True, kw_only=True)
class GroupRules:
    """The rules of a group.

    Attributes:
        objectives: metric -> max or min, in the order of the sweep file.
        first_seeds: of every configuration.
        further_seeds: of leading ones, in this order; empty without staged seeds.
        confidence, indifference, chance: of the race; the indifference in the unit of the objective.
        configurations: how many are proposed at most.
    """

    objectives: Mapping[str, str]
    first_seeds: tuple[int, ...]
    further_seeds: tuple[int, ...] = ()
    confidence: float = 0.95
    indifference: float = 0.002
    chance: float = CHANCE
    configurations: int | None = None

    @property
    def objective(self) -> str:
        """The metric that configurations are ranked by."""
        return next(iter(self.objectives))

    def difference(self, value: float) -> str:
        """A difference of the objective for people; empty if it is no smaller than any could be."""
        if self.unit != POINTS:
            return f"{value:.2g}" if math.isfinite(value) else ""
        return f"{value / POINTS:{'.0f' if value >= 0.1 else '.2g'}} points" if value < 1 else ""

    @property
    def unit(self) -> float:
        """Of `seeds.indifference`."""
        return unit_of(self.objective)

    @property
    def sign(self) -> int:
        """1 where larger values are better, else -1."""
        return 1 if self.objectives[self.objective] == "max" else -1


def unit_of(objective: str) -> float:
    """What differences of a metric are multiples of for people: percentage points of an accuracy, else its own unit."""
    return POINTS if ACCURACY in objective else 1.0
