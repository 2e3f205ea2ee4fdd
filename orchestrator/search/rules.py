"""The settings of a search that apply to each of its groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.search.racing import CHANCE


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

    @property
    def sign(self) -> int:
        """1 where larger values are better, else -1."""
        return 1 if self.objectives[self.objective] == "max" else -1
