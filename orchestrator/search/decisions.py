"""The decisions of a search, one line each in decisions.jsonl of the sweep's folder, in the order in which they were taken.

A line is written before it takes effect. After an interruption the lines are replayed, never decided again, and the search goes
on from there; so its state is a function of these lines alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, Protocol

from trainables.records.checked_lines import CheckedLines, checked_line


class Kind(StrEnum):
    """What a line says."""

    START = "start"  # of a driver, with the settings
    LEARNED = "learned"  # from another sweep
    CONFIGURATION = "configuration"  # joins the search
    TRIAL = "trial"  # begins: one configuration with one seed
    RUNG = "rung"  # a trial is compared with others after some sparse epochs, and goes on or stops
    RESULT = "result"  # a trial is finished, was stopped, or failed
    RULED_OUT = "ruled_out"  # configurations are worse than the leading one
    BEHIND = "behind"  # configurations get no more seeds, though they may be as good
    BUDGET = "budget"  # nothing new begins
    END = "end"  # of a group


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One line.

    Attributes:
        group: name of the group; empty for the whole search.
        configuration: its number within the group; of a race, that of the leading one.
        values: of the configuration; of a result, those of the objectives; of a race, configuration -> how much better than the
            leading one it may be.
        attributes: what the sampler noted on the configuration.
        key: of the trial.
        epoch: sparse epochs of a trial at a rung; epochs that it trained in all at its end.
        value: the objective at a rung.
        seconds: that a trial took.
        state: of a result finished, stopped or failed; of a rung continues or stops; the outcome of an end.
        reason: in words.
        elapsed_s: seconds that the search had run, in all its drivers together.
    """

    kind: Kind
    group: str = ""
    configuration: int | None = None
    seed: int | None = None
    key: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    epoch: int | None = None
    value: float | None = None
    seconds: float | None = None
    state: str = ""
    reason: str = ""
    elapsed_s: float = 0.0

    def to_line(self) -> str:
        """The line without its end; fields at their default are left out."""
        kept = {name: value for name, value in asdict(self).items() if value != _DEFAULTS[name] or name == "kind"}
        return json.dumps(kept | {"elapsed_s": round(self.elapsed_s, 3)}, separators=(",", ":"))

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> Decision:
        """The decision of a line's values. Raises ValueError if it is none."""
        if not set(values) <= set(_DEFAULTS) or "kind" not in values:
            raise ValueError(f"{str(values)[:80]} is no decision")
        return cls(**values | {"kind": Kind(values["kind"])})


_DEFAULTS: dict[str, Any] = {one.name: {} if one.name in ("values", "attributes") else one.default for one in fields(Decision)}


class DecisionLog(Protocol):
    """Where decisions are kept."""

    def read(self) -> list[Decision]:
        """All whole lines, oldest first."""

    def write(self, decisions: Sequence[Decision]) -> None:
        """Adds lines; they are kept when it returns."""


class MemoryLog:
    """Decisions in memory, for replays and tests."""

    def __init__(self, decisions: Sequence[Decision] = ()) -> None:
        self.decisions = list(decisions)

    def read(self) -> list[Decision]:
        return list(self.decisions)

    def write(self, decisions: Sequence[Decision]) -> None:
        self.decisions += decisions


def to_text(decisions: Sequence[Decision]) -> str:
    """The lines of the decisions in a decisions.jsonl, each with its checksum."""
    return "".join(f"{checked_line(decision.to_line())}\n" for decision in decisions)


def from_text(text: str) -> list[Decision]:
    """The decisions of a decisions.jsonl; a last line that was cut off by a crash took no effect and is left out.

    Raises:
        ValueError: another line is damaged, so that what followed cannot be replayed.
    """
    lines = text.split("\n")
    whole, rest = lines[:-1], lines[-1]
    decisions, checked = [], CheckedLines()
    for number, line in enumerate(whole, 1):
        try:
            decisions.append(Decision.from_values(checked.read(line)))
        except (ValueError, TypeError) as error:
            raise ValueError(f"line {number} is damaged: {error}") from None
    del rest
    return decisions
