"""What a stage reports while it runs: its position, its new points and its warnings."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from trainables.runtime.secrets import without_secrets

if TYPE_CHECKING:
    from trainables.trial.checkpoint import TrialState

Report = Callable[[dict[str, Any]], None]


class ProgressReporter(logging.Handler):
    """Reports a stage's progress, its new points and its warnings to the driver."""

    def __init__(self, report: Report, interval_s: float) -> None:
        super().__init__(level=logging.WARNING)
        self.report = report
        self.interval_s = interval_s
        self.reported_points = 0
        self.lines: list[str] = []
        self.last_report = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def new_lines(self) -> list[str]:
        lines, self.lines = self.lines, []
        return [without_secrets(line) for line in lines]

    def new_points(self, state: TrialState) -> list[dict[str, Any]]:
        points = state.metrics.points()
        new, self.reported_points = points[self.reported_points :], len(points)
        return [point.to_json() for point in new]

    def alive(self) -> None:
        """Reports that the stage works."""
        self.last_report = time.monotonic()
        self.report({"event": "alive"})

    def progress(self, state: TrialState, force: bool = False) -> None:
        """Reports phase and position, at most once per interval unless forced."""
        if not force and time.monotonic() - self.last_report < self.interval_s:
            return
        self.last_report = time.monotonic()
        self.report(
            {
                "event": "progress",
                "phase": state.phase,
                "position": state.position,
                "points": self.new_points(state),
                "log": self.new_lines(),
            }
        )
