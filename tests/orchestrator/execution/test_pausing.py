"""The same error in two trials that have nothing in common pauses a sweep: nothing new begins, what runs goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.execution.driver import Driver, initial_state, make_queue
from orchestrator.execution.events import EventFile
from orchestrator.execution.pausing import Pauser, axis_values
from orchestrator.planning.plan import make_plan
from orchestrator.scheduling.queued_stage import QueuedStage, StageState
from orchestrator.state.state_writer import StateWriter
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.factory import open_storage
from orchestrator.terminal.pause import pause_lines
from orchestrator.terminal.progress import Screen
from orchestrator.tracking.plan_runs import planned_runs
from tests.support.sweep_files import BASE, load_text
from trainables.errors import FailureKind

GRID = "search: {warmup_epochs: [0, 2], prune_iterations: [1, 5], seed: [0, 1]}\nsparsity: 0.9\nbaseline: none\n"
CUSTOM = "method: {module: scores.f}\nmodules_path: .\n"


class NoTracking:
    """Takes what a driver sends."""

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **options: None


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def driver_of(text: str) -> Driver:
    """The driver of a sweep that has begun, without Ray and MLflow."""
    spec, storage = load_text(text), open_storage("runs", create=True)
    plan = make_plan(spec, storage, hash_data=True)
    queue = make_queue(plan, storage, lambda key: True)
    folder, state = SweepFolder(storage, spec.name), initial_state(plan, None, queue)
    driver = Driver(
        folder=folder,
        state=state,
        writer=StateWriter(folder, state),
        tracking=NoTracking(),  # type: ignore[arg-type]
        items=planned_runs(plan),
        screen=Screen(quiet=True),
        queue=queue,
        events=EventFile("events.jsonl", spec.name),
    )
    queue.on_change = driver.on_change
    driver.on_failure = Pauser(driver=driver, spec=spec).on_failure
    return driver


def trial(driver: Driver, warmup: int, iterations: int, seed: int) -> QueuedStage:
    name = f"w{warmup:02d}-i{iterations:03d}-s0.9-r{seed}"
    return next(stage for stage in driver.queue.trials.values() if stage.name == name)


def fail(driver: Driver, stage: QueuedStage, message: str = "boom 1", kind: FailureKind = FailureKind.CODE) -> None:
    stage.place = "scores.py:3"
    driver.queue.on_start(stage)
    driver.queue.on_end(stage, kind, message)


def test_two_trials_without_a_common_value_pause_the_sweep() -> None:
    Path("scores.py").write_text("def f(context): ...\n")
    driver = driver_of(BASE + CUSTOM + GRID)
    running = driver.queue.next_stage()
    assert running is not None
    driver.queue.on_start(running)
    fail(driver, trial(driver, 0, 1, 0))
    fail(driver, trial(driver, 0, 5, 1))
    assert not driver.queue.paused
    fail(driver, trial(driver, 2, 5, 1), "boom 2")
    assert driver.queue.paused
    assert driver.queue.next_stage() is None
    assert not driver.queue.done  # what runs goes on
    driver.queue.on_end(running)
    assert driver.queue.done
    names = ["w00-i001-s0.9-r0", "w02-i005-s0.9-r1"]
    pause = {"kind": "code", "message": "boom 2", "place": "scores.py:3", "trials": names, "file": "scores.py"}
    assert json.loads(json.dumps(driver.state.to_status()))["pause"] == pause
    events = [json.loads(line) for line in Path("events.jsonl").read_text().splitlines()]
    (paused,) = [one for one in events if one["event"] == "sweep_paused"]
    assert {name: paused[name] for name in pause} == pause
    first, second = pause_lines(driver.state)
    assert all(name in first for name in names)
    assert "at scores.py:3: boom 2" in first
    assert "resume x --accept-changed scores.py --storage" in second or "resume x --accept-changed scores.py`" in second


@pytest.mark.parametrize("kind", [FailureKind.NON_FINITE, FailureKind.OUT_OF_MEMORY])
def test_what_a_setting_leads_to_pauses_nothing(kind: FailureKind) -> None:
    driver = driver_of(BASE + GRID)
    driver.queue.can_retry_on_whole_gpu = False
    fail(driver, trial(driver, 0, 1, 0), kind=kind)
    fail(driver, trial(driver, 2, 5, 1), kind=kind)
    assert [stage.state for stage in driver.queue.trials.values()].count(StageState.FAILED) == 2
    assert not driver.queue.paused
    assert pause_lines(driver.state) == []


def test_on_error_continue_goes_on() -> None:
    driver = driver_of(BASE + GRID + "on_error: continue\n")
    fail(driver, trial(driver, 0, 1, 0))
    fail(driver, trial(driver, 2, 5, 1))
    assert not driver.queue.paused


def test_where_nothing_is_left_to_begin_there_is_no_pause() -> None:
    driver = driver_of(BASE + "search: {seed: [0, 1]}\nsparsity: 0.9\nbaseline: none\n")
    for stage in list(driver.queue.trials.values()):
        fail(driver, stage)
    assert not driver.state.pause


def test_an_error_outside_the_users_files_asks_for_no_acceptance() -> None:
    driver = driver_of(BASE + GRID)
    fail(driver, trial(driver, 0, 1, 0))
    fail(driver, trial(driver, 2, 5, 1))
    assert driver.state.pause["file"] == ""
    assert "--accept-changed" not in pause_lines(driver.state)[1]


def test_axes_are_keys_with_more_than_one_value() -> None:
    spec = load_text(BASE + "method: [drive, snip]\nsearch: {sparsity: [0.9], drive.magnitude: [1, 2], seed: [0, 1]}\n")
    (config, *_) = (one for one in driver_of(BASE + GRID).state.trials.values())
    values = axis_values(spec, config.config)
    assert values.keys() == {"drive.magnitude", "seed", "method"}
