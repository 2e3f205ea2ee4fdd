"""A trial's metric points, one value per (key, step), each with the time at which it was first recorded.

An existing point is never changed: a resumed trial computes the same value again, and the tracking server distinguishes points
by their timestamps.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from trainables.records.checked_lines import CheckedLines, checked_line

EARLIEST_MS = 10**12  # of Unix time, in 2001: a number that lost digits is below it


class DamagedRecordError(Exception):
    """A file of a trial's record is not what was written; its content is not used."""


@dataclass(frozen=True, slots=True)
class Point:
    """One value of one metric; `time_ms` is Unix time in milliseconds."""

    key: str
    step: int
    value: float
    time_ms: int

    def to_json(self) -> dict[str, Any]:
        return {"key": self.key, "step": self.step, "value": self.value, "time": self.time_ms}


class MetricLog:
    """The points of one trial in the order of their recording."""

    def __init__(self, points: Iterable[Point] = ()) -> None:
        self._points = {(point.key, point.step): point for point in points}

    def record(self, step: int, values: dict[str, float]) -> None:
        """Adds points; skips values that are not finite and points that exist."""
        now_ms = int(time.time() * 1000)
        for key, value in values.items():
            if math.isfinite(value):
                self._points.setdefault((key, step), Point(key, step, float(value), now_ms))

    def merge(self, points: Iterable[Point]) -> None:
        """Adds points that were published before; they replace existing ones, since others may have read them."""
        self._points |= {(point.key, point.step): point for point in points}

    def points(self) -> list[Point]:
        return list(self._points.values())

    def last_values(self) -> dict[str, float]:
        """The value with the highest step of every key."""
        latest = sorted(self._points.values(), key=lambda point: point.step)
        return {point.key: point.value for point in latest}

    def to_lines(self) -> bytes:
        """The content of metrics.jsonl."""
        return b"".join(checked_line(json.dumps(point.to_json())).encode() + b"\n" for point in self._points.values())


def points_from_lines(content: bytes) -> list[Point]:
    """The points of a metrics.jsonl.

    Raises:
        DamagedRecordError: a line is not a point.
    """
    points, lines = [], CheckedLines()
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            points.append(points_from_json(lines.read(line.decode())))
            if not lines.has_checksum and points[-1].time_ms < EARLIEST_MS:
                raise ValueError("a time that lost digits")
        except ValueError:
            raise DamagedRecordError(f"has no metric point in line {number}") from None
    return points


def points_from_json(point: Any) -> Point:
    """Raises ValueError if it is not what `Point.to_json` gives: values are finite, and no other field is there."""
    match point:
        case {"key": str(key), "step": int(step), "value": int() | float() as value, "time": int(time_ms), **others}:
            if not others and not any(isinstance(number, bool) for number in (step, value, time_ms)):
                with suppress(OverflowError):  # an integer of more than 308 digits
                    if math.isfinite(value):
                        return Point(key, step, float(value), time_ms)
    raise ValueError(f"{str(point)[:80]} is no metric point")
