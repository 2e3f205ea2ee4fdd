"""What `status` and the screen say of a search, and of other sweeps."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.state.sweep_state import SweepState, TrialStatus, state_from_bytes, state_to_bytes
from orchestrator.terminal.progress import Screen, summary_line
from orchestrator.terminal.status import print_status
from tests.support.trials import tiny_config
from trainables.config.keys import complete

METRICS = {"val/accuracy": 0.9, "test/accuracy": 0.9}


def trial(key: str, state: str, **fields: Any) -> TrialStatus:
    return TrialStatus(key=key, name=f"name-{key}", state=state, config=complete(tiny_config()), metrics=METRICS, **fields)


def searched(*, settled: bool = True) -> SweepState:
    trials = [trial("a", "finished"), trial("b", "stopped", error="behind others of s0.9", rung=3)]
    state = SweepState(sweep="x", search={"s0.9": "exploring: 2 configurations, 1 ruled out"}, settled=settled)
    state.trials = {one.key: one for one in trials}
    return state


def test_a_summary_counts_early_stops_apart_and_knows_no_total() -> None:
    state = searched()
    assert summary_line(state) == "1 finished, 1 stopped early"
    state.trials["c"] = trial("c", "stopped", error="stopped by the user")
    assert summary_line(state) == "1 finished, 1 stopped early, 1 stopped"
    state.search = {}
    assert summary_line(state).startswith("1/3 finished")


def test_status_shows_the_groups_and_why_a_trial_was_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    print_status(searched())
    text = capsys.readouterr().out
    assert "s0.9: exploring: 2 configurations, 1 ruled out" in text
    (row,) = (line for line in text.splitlines() if line.startswith("b "))
    assert "stopped early  rung 3" in row
    assert "behind others of" in row
    assert "best at the highest sparsity" not in text
    assert "to continue" not in text


def test_a_search_that_goes_on_is_to_be_continued(capsys: pytest.CaptureFixture[str]) -> None:
    print_status(searched(settled=False))
    assert "to continue: drive-sweep resume x" in capsys.readouterr().out


def test_only_early_stops_leave_a_sweep_complete() -> None:
    state = searched()
    assert state.is_complete
    assert state.to_status()["stopped_early"] == 1
    state.trials["b"].rung = None
    assert not state.is_complete
    assert not searched(settled=False).is_complete


def test_states_of_searches_are_read_as_written() -> None:
    state = searched(settled=False)
    read = state_from_bytes(state_to_bytes(state, {}))
    assert read is not None
    assert (read.search, read.settled, read.trials["b"].rung) == (state.search, False, 3)


def test_no_time_left_is_named_while_trials_may_join() -> None:
    screen, state = Screen(quiet=True), searched(settled=False)
    screen.first_finished, screen.paced_since = 0, (-1000.0, 0)
    state.trials |= {key: trial(key, "finished") for key in "cdef"} | {"g": trial("g", "waiting")}
    assert screen._time_left(state) == ""
    state.settled = True
    assert "left" in screen._time_left(state)
