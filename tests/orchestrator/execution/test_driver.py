"""What the driver knows of a sweep before it runs anything, and what set-aside records leave behind."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from orchestrator.errors import SetupError, UserError
from orchestrator.execution import sweep
from orchestrator.execution.driver import Driver, initial_state, make_queue
from orchestrator.execution.sweep import RunOptions, run_sweep
from orchestrator.planning.plan import Plan, make_plan
from orchestrator.scheduling.queued_stage import StageState
from orchestrator.spec.loader import load_spec
from orchestrator.state.state_writer import StateWriter
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.state.sweep_state import SweepState
from orchestrator.storage.base import Storage
from orchestrator.storage.factory import open_storage
from orchestrator.storage.layout import TrialFolder, archive_trial, newest_attempt, trial_file
from orchestrator.terminal.progress import Screen
from orchestrator.tracking.plan_runs import planned_runs, sweep_run_spec
from orchestrator.tracking.process import TrackingProcess
from tests.support.cli import tiny_sweep
from tests.support.trials import write_result
from trainables.errors import StaleAttemptError
from trainables.records.file_names import RESULT


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "runs"), create=True)


@pytest.fixture
def plan(tmp_path: Path, storage: Storage) -> Plan:
    return make_plan(load_spec(str(tiny_sweep(tmp_path))), storage)


def test_trials_left_alone_keep_state_error_and_run(plan: Plan, storage: Storage) -> None:
    queue = make_queue(plan, storage, lambda key: True)
    before = initial_state(plan, None, queue)
    failed, chosen = plan.trials[0].key, plan.trials[1].key
    for key in (failed, chosen):
        before.trials[key].state, before.trials[key].error = "failed", "boom"
        before.trials[key].mlflow_run_id = f"run of {key}"
    state = initial_state(plan, before, make_queue(plan, storage, lambda key: key == chosen))
    assert (state.trials[failed].state, state.trials[failed].error) == ("failed", "boom")
    assert (state.trials[chosen].state, state.trials[chosen].error) == ("waiting", None)
    assert state.trials[failed].mlflow_run_id == f"run of {failed}"
    assert state.trials[chosen].mlflow_run_id == f"run of {chosen}"


def test_queue_has_the_warmups_of_the_selected_trials(plan: Plan, storage: Storage) -> None:
    one = next(trial for trial in plan.trials if trial.config.warmup_epochs == 1)
    queue = make_queue(plan, storage, lambda key: key == one.key)
    assert [warmup.lengths for warmup in queue.warmups.values()] == [(1,)]
    cold = next(trial for trial in plan.trials if trial.config.warmup_epochs == 0)
    assert make_queue(plan, storage, lambda key: key == cold.key).warmups == {}


def test_queue_dispatches_with_the_newest_attempt(plan: Plan, storage: Storage) -> None:
    """Attempts started after the queue was filled count, too."""
    cold = next(trial for trial in plan.trials if trial.config.warmup_epochs == 0)
    queue = make_queue(plan, storage, lambda key: key == cold.key)
    TrialFolder(storage, cold.key, 3).claim_attempt()
    entry = queue.next_stage()
    assert entry is not None
    assert entry.attempt == 4


def test_of_two_attempts_with_one_number_the_later_one_publishes(storage: Storage) -> None:
    first, second = TrialFolder(storage, "k", 1), TrialFolder(storage, "k", 1)
    first.claim_attempt()
    second.claim_attempt()
    with pytest.raises(StaleAttemptError):
        first.publish("metrics.jsonl", b"late")
    second.publish("metrics.jsonl", b"mine")


def test_finished_trial_does_not_start_again(storage: Storage) -> None:
    winner = TrialFolder(storage, "k", 2)
    winner.claim_attempt()
    winner.publish("result.json", b"{}")
    late = TrialFolder(storage, "k", 1)
    late.claim_attempt()
    assert late.read("result.json") == b"{}"
    assert newest_attempt(storage, "k") == 2


def test_set_aside_trials_keep_files_and_late_workers_out(storage: Storage) -> None:
    old = TrialFolder(storage, "k", 1)
    old.claim_attempt()
    old.publish("result.json", b"first")
    archive_trial(storage, "k")
    with pytest.raises(StaleAttemptError):
        old.publish("checkpoint", b"late")
    again = TrialFolder(storage, "k", newest_attempt(storage, "k") + 1)
    again.claim_attempt()
    again.publish("result.json", b"second")
    archive_trial(storage, "k")
    kept = sorted(path.read_bytes() for path in Path(storage.root, "trials/.aside").glob("*/result.json"))
    assert kept == [b"first", b"second"]


def test_one_of_two_drivers_that_start_together_holds_the_sweep(storage: Storage) -> None:
    folder = SweepFolder(storage, "s")
    folder.write_state(SweepState(sweep="s"))
    with folder.driver_lease(), pytest.raises(SetupError, match="being run by another process"), folder.driver_lease():
        pass
    with folder.driver_lease():
        pass


def test_trials_begin_anew_only_under_the_lock_of_their_driver(
    tmp_path: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = load_spec(str(tiny_sweep(tmp_path)))
    first, second, *_ = (trial.key for trial in make_plan(spec, storage).trials)
    for key in (first, second):
        write_result(storage, key, {"revision": "earlier", "config": {"setting": "of an earlier version"}})
    plan, again = make_plan(spec, storage), RunOptions(from_scratch=frozenset([first]))
    plans: list[Plan] = []

    def run_with_lease(
        folder: SweepFolder, plan_to_run: Plan, spec_text: str, options: RunOptions, notes: Sequence[str]
    ) -> int:
        with pytest.raises(SetupError, match="being run by another process"), folder.driver_lease():
            pass
        assert not storage.exists(trial_file(first, RESULT))
        assert storage.exists(trial_file(second, RESULT))
        plans.append(plan_to_run)
        return 0

    monkeypatch.setattr(sweep, "_run_with_lease", run_with_lease)
    with SweepFolder(storage, "tiny").driver_lease(), pytest.raises(SetupError, match="being run by another process"):
        run_sweep(plan, "", storage, again)
    assert storage.exists(trial_file(first, RESULT))
    with pytest.raises(UserError, match="no sweep 'tiny' in storage"):  # renamed or deleted since it was planned
        run_sweep(plan, "", storage, RunOptions(is_resumed=True))
    run_sweep(plan, "", storage, again)
    results = [trial.result for trial in plans[0].trials if trial.key in (first, second)]
    assert [result and result["revision"] for result in results] == [None, "earlier"]
    assert [path.name for path in Path(storage.root, "trials/.aside").iterdir()] == [f"{first}-0"]


def test_a_driver_that_hangs_ends_some_time_after_a_signal() -> None:
    script = """
import atexit, sys, time
from orchestrator.execution import shutdown_deadline
shutdown_deadline.EXIT_TIMEOUT_S = 2.0
atexit.register(time.sleep, float(sys.argv[2]))
shutdown_deadline.exit_after_deadline(15)
time.sleep(float(sys.argv[1]))
"""

    def ended(work_s: float, cleaning_s: float) -> tuple[int, str]:
        command = [sys.executable, "-c", script, str(work_s), str(cleaning_s)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stderr

    assert ended(0.0, 0.0) == (0, "")
    for hanging in ((60.0, 0.0), (0.0, 60.0)):
        code, output = ended(*hanging)
        assert code == 128 + 15
        assert "`resume` continues" in output


def test_a_clock_that_jumps_counts_no_time(plan: Plan, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, queue = SweepFolder(storage, plan.spec.name), make_queue(plan, storage, lambda key: True)
    state = initial_state(plan, None, queue)
    driver = Driver(
        folder=folder,
        state=state,
        writer=StateWriter(folder, state),
        tracking=TrackingProcess(sweep_run_spec(plan, storage)),
        items=planned_runs(plan),
        screen=Screen(quiet=True),
        queue=queue,
    )
    now = time.time()
    for key, hours in zip(list(queue.trials)[:2], (1, -1), strict=True):
        stage = queue.trials[key]
        stage.state = StageState.RUNNING
        driver.on_change(stage)
        monkeypatch.setattr(time, "time", lambda hours=hours: now + 3600 * hours)
        assert state.slot_seconds(time.time()) >= 0
        stage.state = StageState.STOPPED
        driver.on_change(stage)
        monkeypatch.undo()
        assert 0 <= state.trials[key].seconds < 60
