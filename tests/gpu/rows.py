"""What a section yields: rows of the report. Imports nothing but Python, as the command's own process does."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any


class State(StrEnum):
    """What became of a row; a FAILED one makes the command fail."""

    MEASURED = "measured"
    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    NOT_RUN = "not run"


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One figure or check.

    Attributes:
        aim: what the figure should be, in words; empty without an aim.
        ok: whether the aim is reached; None without one.
        note: the spread, a rule, or the reason why there is no value.
    """

    name: str
    state: State
    value: float | str | None = None
    unit: str = ""
    aim: str = ""
    ok: bool | None = None
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Row:
        return Row(**{**record, "state": State(record["state"])})


def measured(name: str, value: float | str, unit: str = "", *, aim: str = "", ok: bool | None = None, note: str = "") -> Row:
    """A figure; one that misses its aim is no failure."""
    return Row(name=name, state=State.MEASURED, value=value, unit=unit, aim=aim, ok=ok, note=note)


def checked(name: str, holds: bool, rule: str, note: str = "") -> Row:
    """A rule that must hold."""
    state = State.PASSED if holds else State.FAILED
    return Row(name=name, state=state, value="yes" if holds else "no", aim=rule, ok=holds, note=note)


def failed(name: str, reason: str) -> Row:
    return Row(name=name, state=State.FAILED, note=reason)


def skipped(name: str, reason: str) -> Row:
    return Row(name=name, state=State.SKIPPED, note=reason)


def not_run(name: str) -> Row:
    return Row(name=name, state=State.NOT_RUN, note="no time was left")


class SkippedError(Exception):
    """This machine lacks what a section or a check needs; its text is the reason."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where and how long a section works.

    Attributes:
        brief: the shortened form for a CPU.
        folder: for its files; empty at the start.
        seconds: that it should take.
    """

    device: str
    brief: bool
    folder: Path
    seconds: float
    started: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        return self.seconds - (time.monotonic() - self.started)

    def require_gpu(self, what: str) -> None:
        if self.device != "cuda":
            raise SkippedError(f"{what} need a CUDA device")
