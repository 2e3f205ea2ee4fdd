"""What a search was asked for, as its decisions record it: some may change between two runs, the rest may not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.errors import UserError
from orchestrator.search.decisions import Decision, Kind
from orchestrator.search.groups import groups_of, seeds_of
from orchestrator.spec.ranges import Range
from trainables.config.keys import canonical

if TYPE_CHECKING:
    from orchestrator.spec.schema import SweepSpec


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """The settings that a START line holds.

    Attributes:
        course: digest of all that decides the course: axes, groups, strategy, first seeds, objective, early stopping.
        limits: that end it: configurations, seeds and their test, budget. A larger limit takes the search on.
    """

    sweep: str
    course: str
    limits: dict[str, Any]

    @classmethod
    def of(cls, spec: SweepSpec) -> SearchSettings:
        first, further = seeds_of(spec)
        strategy = spec.strategy.model_dump(exclude={"configurations", "axes"})
        course = {
            "axes": {key: _axis(spec, key) for key in spec.configuration_axes},
            "groups": {group.name: canonical(group.trial(group.space.first(), spec.seed)) for group in groups_of(spec)},
            "strategy": strategy,
            "seeds": first,
            "objective": spec.objective,
            "early_stopping": spec.early_stopping and spec.early_stopping.model_dump(),
        }
        limits = {
            "configurations": spec.strategy.configurations,
            "further_seeds": list(further),
            "test": spec.seeds and [spec.seeds.confidence, spec.seeds.indifference],
            "budget": spec.budget and spec.budget.model_dump(),
        }
        digest = hashlib.sha256(json.dumps(course, sort_keys=True).encode()).hexdigest()[:16]
        return cls(sweep=spec.name, course=digest, limits=limits)

    def decision(self) -> Decision:
        """The line that begins a run."""
        return Decision(kind=Kind.START, values={"course": self.course, "limits": self.limits})

    def require_same_course(self, decisions: Sequence[Decision]) -> None:
        """Raises UserError if the decisions are of a search with another course."""
        if any(one.kind is Kind.START and one.values["course"] != self.course for one in decisions):
            raise UserError(
                f"sweep {self.sweep!r} was searched with another space, strategy, objective, early stopping or first seeds",
                "give the sweep another name; finished trials of the storage are reused",
                code="search-changed",
            )

    def current(self, decisions: Sequence[Decision]) -> list[Decision]:
        """The decisions that still hold: what ended before the limits changed last goes on, and ends anew if it must."""
        last = max((index for index, one in enumerate(decisions) if one.kind is Kind.START), default=0)
        same = not decisions or decisions[last].values.get("limits") == self.limits
        return [
            decision
            for index, decision in enumerate(decisions)
            if decision.kind not in (Kind.BUDGET, Kind.END) or (same and index > last)
        ]


def is_settled(spec: SweepSpec, decisions: Sequence[Decision]) -> bool:
    """Whether every group of the search has ended under the present limits."""
    last: dict[str, Kind] = {}
    for decision in SearchSettings.of(spec).current(decisions):
        if decision.kind in (Kind.RESULT, Kind.END):  # a result after the end is of a trial that failed and ran again
            last[decision.group] = decision.kind
    return all(last.get(group.name) is Kind.END for group in groups_of(spec))


def _axis(spec: SweepSpec, key: str) -> Any:
    axis = spec.search[key]
    return axis.to_mapping() if isinstance(axis, Range) else list(axis)
