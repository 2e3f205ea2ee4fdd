"""Keeps the summary of a running sweep in MLflow up to date: description, figures, recommended models and the report.

A process of low priority makes it from the sweep's folder, since the driver's Python is busy with Ray.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Thread
from typing import Any

from orchestrator.execution.driver import Driver
from orchestrator.execution.summarizing import sweep_summary, with_report
from orchestrator.process.child import ask, serve
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.state.sweep_state import SweepState
from orchestrator.storage.factory import open_storage
from orchestrator.tracking.sweep_summary import SweepSummary

FIRST_AFTER_S = 60.0  # a sweep that is shorter has its summary at its end
INTERVAL_S = 180.0
INTERVAL_FACTOR = 20.0  # times the duration of the last one: summaries take at most a twentieth of the time
NICENESS = 15


@dataclass(kw_only=True)
class SummaryRefresher:
    """Has summaries made when trials have ended since the last one, and hands them to the tracking.

    Attributes:
        plan: what the sweep is, in Markdown.
        ended: trials that had at the last summary.
        not_before: time of the clock before which no other is made.
        problem: what went wrong the last time.
    """

    driver: Driver
    plan: str
    make: Callable[[SweepFolder, str], SweepSummary]
    interval_s: float = INTERVAL_S
    clock: Callable[[], float] = time.monotonic
    ended: int = 0
    not_before: float = field(init=False)
    problem: str = ""
    _work: Thread | None = None
    _made: SweepSummary | None = None
    _error: str = ""

    def __post_init__(self) -> None:
        self.not_before = self.clock() + min(FIRST_AFTER_S, self.interval_s)

    def on_tick(self) -> None:
        """Takes what was made, and begins another one if it is time; never waits."""
        if self._work is not None:
            if self._work.is_alive():
                return
            self._work = None
            self._take()
        if self.clock() < self.not_before or self.driver.stop_deadline is not None:
            return
        counts = self.driver.state.counts()
        ended = counts["finished"] + counts["failed"] + counts["stopped"]
        if ended != self.ended:
            self.ended = ended
            self._work = Thread(target=self._make, name="summary", daemon=True)
            self._work.start()

    def _make(self) -> None:
        started = self.clock()
        self._made, self._error = None, ""
        try:
            self._made = self.make(self.driver.folder, self.plan)
        except Exception as error:  # like the report at the end, it must not fail a sweep
            self._error = str(error) or type(error).__name__
        self.not_before = self.clock() + max(self.interval_s, INTERVAL_FACTOR * (self.clock() - started))

    def _take(self) -> None:
        if self._made is not None:
            self.driver.tracking.summarize(self._made)
        elif self._error != self.problem and self.driver.stop_deadline is None:
            self.problem = self._error
            self.driver.log(f"MLflow: no summary of what has finished so far: {self._error}")


def made_by_child(folder: SweepFolder, plan: str) -> SweepSummary:
    """The summary, made by a process of low priority.

    Raises:
        ChildError: it has failed.
    """
    request = {"storage": folder.storage.root, "sweep": folder.name, "plan": plan}
    return SweepSummary.from_json(ask(__name__, request, keep_errors=True))


def main() -> None:
    """The child process."""
    os.nice(NICENESS)
    serve(_respond)


def _respond(request: dict[str, Any]) -> dict[str, Any]:
    folder = SweepFolder(open_storage(request["storage"]), request["sweep"])
    state = folder.read_state() or SweepState(sweep=folder.name)
    return with_report(sweep_summary(folder, state, request["plan"]), folder, state).to_json()
