"""Keeps the recommendations in the state of a running sweep up to date, for `status` and the screen."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orchestrator.execution.driver import Driver
from orchestrator.recommendation.sentences import details, sentence, short_form
from orchestrator.reporting.sweep_results import recommended
from orchestrator.search.overview import recorded_overview

INTERVAL_S = 5.0
INTERVAL_FACTOR = 20.0  # times the duration of the last update: updates take at most a twentieth of the time


@dataclass(kw_only=True)
class Recommender:
    """Updates the recommendations when trials have finished since the last time.

    Attributes:
        finished: trials that had at the last update.
        not_before: time of the clock before which there is no other update.
        problem: what went wrong the last time.
    """

    driver: Driver
    interval_s: float = INTERVAL_S
    clock: Callable[[], float] = time.monotonic
    finished: int = -1
    not_before: float = 0.0
    problem: str = ""

    def on_tick(self) -> None:
        """Updates them if it is time and something has changed."""
        if self.clock() < self.not_before:
            return
        finished = self.driver.state.counts()["finished"]
        if finished != self.finished:
            self.update()
            self.finished = finished

    def update(self) -> None:
        """What goes wrong leaves them as they are and is said once: like the report, they must not fail a sweep."""
        started = self.clock()
        folder, state = self.driver.folder, self.driver.state
        try:
            overview = recorded_overview(folder) if state.search else None
            advice = recommended(folder, state, overview)
        except Exception as error:
            if str(error) != self.problem:
                self.problem = str(error)
                self.driver.screen.print(f"no recommendations: {error}")
            return
        finally:
            self.not_before = self.clock() + max(self.interval_s, INTERVAL_FACTOR * (self.clock() - started))
        recommendations = [
            {"group": one.name, "sentence": sentence(one), "details": details(one), **short_form(one)} for one in advice
        ]
        known = {one["group"]: _choice(one) for one in state.recommendations}
        with self.driver.writer.lock:
            state.recommendations = recommendations
            if overview is not None:
                state.progress.search_epochs, state.progress.grid_epochs = overview.epochs, overview.grid_epochs
        self.driver.writer.changed()
        for one in recommendations:
            if known.get(one["group"]) != _choice(one):
                facts = {name: one[name] for name in ("group", "configuration", "value", "certainty", "sentence")}
                self.driver.events.write("recommendation_changed", **facts)


def _choice(recommendation: dict[str, Any]) -> tuple[Any, ...]:
    """What makes it another recommendation, rather than another estimate of what it gives."""
    return recommendation.get("configuration"), recommendation.get("certainty")
