"""What `status` and the screen say of a search, and of other sweeps."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.state.sweep_state import Progress, SweepState, TrialStatus, WarmupStatus, state_from_bytes, state_to_bytes
from orchestrator.terminal.overview import summary_line
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


def test_status_has_the_facts_of_the_screen(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.terminal.status.driver_alive", bool)
    state = searched(settled=False)
    state.driver = {"pid": 7, "host": "here"}
    state.progress = Progress(
        slots=2, workers_per_trial=4, seconds=3700, seconds_left=(1800, 2500), last_error="b failed (code): boom"
    )
    state.trials["c"] = trial("c", "running", started=time.time() - 60, seconds=100)
    state.tracking_pending, state.tracking_error = 12, "the server is down"
    print_status(state)
    text = capsys.readouterr().out
    assert "1 of 2 busy, 4 workers each" in text
    assert "1 h 01 min spent, 2 min 40 s of slots; 30 min to 42 min left" in text
    assert "12 events waiting: the server is down" in text
    assert "b failed (code): boom" in text
    print_status(replace(state, driver={}))
    text = capsys.readouterr().out
    assert "busy" not in text
    assert " left" not in text
    assert "MLflow lacks 12 events; `drive-sweep sync x` sends them" in text


def test_json_has_the_same_facts() -> None:
    state = searched()
    state.progress = Progress(slots=2, seconds=5.0, seconds_left=(1.0, 2.0))
    facts = state.to_status()["progress"]
    assert facts["seconds_left"] == (1.0, 2.0)
    assert (facts["slots"], facts["busy"], facts["epochs_saved_by_stopping"]) == (2, 0, 0)


def test_epochs_are_saved_by_sharing_once_trials_have_used_a_warmup() -> None:
    state = SweepState(sweep="x", warmups={"w": WarmupStatus(key="w", name="w", state="running", epochs=2, position=1)})
    assert state.saved_by_sharing == 0
    state.trials = {key: trial(key, "finished") for key in "abc"}  # with 2 warm-up epochs each
    assert state.saved_by_sharing == 5
    state.warmups["w"].state, state.warmups["w"].position = "finished", 0  # as a later run finds it
    assert state.saved_by_sharing == 4
    state.warmups = {}
    assert state.saved_by_sharing == 0


def test_a_state_of_an_older_version_is_read() -> None:
    state = state_to_bytes(searched(), {})
    older = json.loads(state)
    for name in ("groups", "progress", "state_sha256"):
        del older[name]
    for one in older["trials"].values():
        del one["started"], one["seconds"]
    read = state_from_bytes(json.dumps(older).encode())
    assert read is not None
    assert read.progress == Progress()
    print_status(read)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_long_error_is_cut_in_its_row_and_stands_below_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    error = "the training loss became nan in epoch 1 (learning rate 1e+30), and this goes on for more than a line"
    state = SweepState(sweep="x")
    state.trials = {key: trial(key, "failed", error=error) for key in "abc"}
    print_status(state)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= width
    assert [line.split()[:3] for line in lines if line.startswith("a ")] == [["a", "name-a", "failed"]]
    assert " ".join(" ".join(lines).split()).count(f"3 trials failed: {error}") == 1


@pytest.mark.parametrize(("seconds", "said"), [(20, ")"), (250, ", silent for 4 min")])
def test_a_driver_that_writes_nothing_is_said_to_be_silent(
    seconds: float, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.terminal.status.driver_alive", bool)
    monkeypatch.setenv("COLUMNS", "200")
    print_status(replace(searched(), driver={"pid": 7, "host": "h", "heartbeat": time.time() - seconds}))
    assert f"run by process 7 on h{said}" in capsys.readouterr().out
