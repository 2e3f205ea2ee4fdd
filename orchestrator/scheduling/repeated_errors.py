"""Finds the same error in two trials that have nothing in common: then no setting is to blame, and others will fail too."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.scheduling.queued_stage import QueuedStage
from orchestrator.scheduling.retry_policy import POLICIES

NUMBER = re.compile(r"0x[0-9a-f]+|\d+")
WARMUP = re.compile(r"^its warm-up \S+ failed: ")


@dataclass(frozen=True, kw_only=True, slots=True)
class RepeatedError:
    """An error that two trials have shown."""

    kind: str
    message: str
    place: str
    trials: tuple[str, str]


@dataclass(kw_only=True)
class RepeatedErrors:
    """The errors of a sweep so far.

    Attributes:
        values_of: key of a trial -> its values on the axes of the sweep that have more than one.
    """

    values_of: Callable[[str], Mapping[str, Any]]
    _seen: dict[tuple[str, str, str], list[QueuedStage]] = field(default_factory=dict)

    def add(self, trial: QueuedStage) -> RepeatedError | None:
        """Takes a trial that has failed; the error if another one has had it that differs on every axis."""
        if trial.failure is None or not POLICIES[trial.failure].pauses:
            return None
        message = WARMUP.sub("", trial.message)
        earlier = self._seen.setdefault((trial.failure, trial.place, NUMBER.sub("#", message)), [])
        other = next((one for one in earlier if self._have_nothing_in_common(one, trial)), None)
        earlier.append(trial)
        if other is None:
            return None
        return RepeatedError(kind=trial.failure.value, message=message, place=trial.place, trials=(other.name, trial.name))

    def _have_nothing_in_common(self, one: QueuedStage, other: QueuedStage) -> bool:
        first, second = self.values_of(one.key), self.values_of(other.key)
        return all(first[axis] != second[axis] for axis in first)
