"""Summaries while a sweep runs: seldom, in another process, and never waited for."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, cast

import pytest

from orchestrator.execution.driver import Driver
from orchestrator.execution.refreshing import FIRST_AFTER_S, INTERVAL_S, SummaryRefresher, made_by_child
from orchestrator.execution.summarizing import sweep_summary
from orchestrator.state.sweep_state import SweepState, TrialStatus
from orchestrator.tracking.sweep_summary import SweepSummary
from tests.orchestrator.execution.test_summarizing import TEXT, metrics
from tests.support.finished_sweeps import finished_on_disk


class Sweep:
    """What a refresher needs of a driver, with a clock."""

    def __init__(self) -> None:
        self.state = SweepState(sweep="x")
        self.folder = None
        self.stop_deadline: float | None = None
        self.tracking = self
        self.now = 1000.0
        self.sent: list[SweepSummary] = []
        self.lines: list[str] = []

    def summarize(self, summary: SweepSummary) -> None:
        self.sent.append(summary)

    def log(self, line: str) -> None:
        self.lines.append(line)

    def finish(self, number: int) -> None:
        for _ in range(number):
            key = str(len(self.state.trials))
            self.state.trials[key] = TrialStatus(key=key, name=key, state="finished", config={})

    def refresher(self, make: Any) -> SummaryRefresher:
        return SummaryRefresher(driver=cast(Driver, self), plan="plan", make=make, clock=lambda: self.now)


def settle(refresher: SummaryRefresher) -> None:
    """Ticks until the work that was begun is done, if any was."""
    refresher.on_tick()
    if refresher._work is not None:
        refresher._work.join()
        refresher.on_tick()


def test_summaries_are_seldom_and_only_when_trials_have_ended() -> None:
    sweep = Sweep()
    refresher = sweep.refresher(lambda folder, plan: SweepSummary(description=plan))
    sweep.finish(1)
    settle(refresher)
    assert sweep.sent == [], "a short sweep has its summary at its end"
    sweep.now += FIRST_AFTER_S
    settle(refresher)
    assert [one.description for one in sweep.sent] == ["plan"]
    sweep.finish(1)
    sweep.now += INTERVAL_S - 1
    settle(refresher)
    assert len(sweep.sent) == 1
    sweep.now += 1
    settle(refresher)
    assert len(sweep.sent) == 2
    sweep.now += 10 * INTERVAL_S
    settle(refresher)
    assert len(sweep.sent) == 2, "nothing has ended since"


def test_a_tick_does_not_wait_and_a_slow_summary_waits_longer() -> None:
    sweep, begun, go_on = Sweep(), threading.Event(), threading.Event()

    def make(folder: Any, plan: str) -> SweepSummary:
        begun.set()
        go_on.wait(30)
        sweep.now += 100
        return SweepSummary()

    refresher = sweep.refresher(make)
    sweep.finish(1)
    sweep.now += FIRST_AFTER_S
    refresher.on_tick()
    assert begun.wait(30)
    refresher.on_tick()
    assert sweep.sent == []
    go_on.set()
    settle(refresher)
    assert len(sweep.sent) == 1
    sweep.finish(1)
    sweep.now += 1999
    settle(refresher)
    assert len(sweep.sent) == 1
    sweep.now += 1
    settle(refresher)
    assert len(sweep.sent) == 2


def test_what_goes_wrong_is_said_once_and_nothing_begins_while_stopping() -> None:
    sweep = Sweep()

    def fail(folder: Any, plan: str) -> SweepSummary:
        raise ValueError("no figures")

    refresher = sweep.refresher(fail)
    for _ in range(2):
        sweep.finish(1)
        sweep.now += 10_000
        settle(refresher)
    assert sweep.lines == ["MLflow: no summary of what has finished so far: no figures"]
    sweep.stop_deadline = 1.0
    sweep.finish(1)
    sweep.now += 10_000
    refresher.on_tick()
    assert refresher._work is None


@pytest.mark.process
def test_a_child_makes_the_same_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder, state = finished_on_disk(tmp_path / "runs", TEXT.replace("[drive, random]", "drive"), metrics)
    here, made = sweep_summary(folder, state, "plan"), made_by_child(folder, "plan")
    assert (made.description, made.step, made.recommended) == (here.description, here.step, here.recommended)
    assert made.artifacts["report.html"].startswith(b"<!doctype html>")
