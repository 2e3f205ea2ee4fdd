"""Syncs that were cut off after any call are completed by the next one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from orchestrator.storage.base import Storage
from orchestrator.storage.local import LocalStorage
from orchestrator.tracking.client import TrackingTarget
from orchestrator.tracking.records import RunSpec, read_record
from orchestrator.tracking.run_sync import RunSync
from tests.support.mlflow_stores import Content, ProcessEndedError, new_target, recorded
from tests.support.tracked_sweep import (
    DESCRIPTION,
    PARAMS,
    STATES,
    SWEEP,
    TrackedSweep,
    item,
    open_sync,
    points_of,
    published,
    synced,
    without_starts,
)


def from_its_record(sync: RunSync, of: RunSpec, state: str) -> None:
    sync.reconcile([(of, state)])


def at_once(sync: RunSync, of: RunSpec, state: str) -> None:
    """As the thread does when a trial began and ended since it sent last."""
    end = {"finished": sync.finish, "stopped": sync.stop}.get(state, partial(sync.fail, message=""))
    end(of, started_ms=5, points=points_of(sync.storage, of))


def step_by_step(sync: RunSync, of: RunSpec, state: str) -> None:
    points = read_record(sync.storage, of.role, of.key).points
    sync.start(of, 5, points[:3])
    sync.add_points(of, points[:-1])
    {"finished": sync.finish, "stopped": sync.stop}.get(state, partial(sync.fail, message=""))(of)


def nothing_before(sync: RunSync, of: RunSpec) -> None:
    pass


def a_failed_attempt_before(sync: RunSync, of: RunSpec) -> None:
    points = points_of(sync.storage, of)[:5]
    sync.storage = LocalStorage(str(Path(sync.storage.root, "of-that-time")))  # where nothing is recorded yet
    sync.start(of)
    sync.add_points(of, points)
    sync.fail(of, "lost its process")


def the_same_failure_before(sync: RunSync, of: RunSpec) -> None:
    sync.fail(of, "")


def finished_without_model_before(sync: RunSync, of: RunSpec) -> None:
    sync.log_models = False
    sync.finish(of)


@pytest.mark.parametrize(
    ("name", "before", "way"),
    [
        ("w02-r0", nothing_before, from_its_record),
        pytest.param("w02-r0", nothing_before, at_once, marks=pytest.mark.long),
        ("w02-r0", nothing_before, step_by_step),
        ("w02-r0", a_failed_attempt_before, at_once),
        pytest.param("w02-r0", finished_without_model_before, from_its_record, marks=pytest.mark.long),
        pytest.param("w00-diverges", nothing_before, from_its_record, marks=pytest.mark.long),
        ("w00-diverges", a_failed_attempt_before, at_once),
        ("w00-diverges", the_same_failure_before, at_once),
        ("w00-stopped", nothing_before, at_once),
        ("warmup-r0", nothing_before, from_its_record),
        pytest.param("warmup-r0", nothing_before, step_by_step, marks=pytest.mark.long),
    ],
)
def test_sync_completes_a_run_that_was_cut_off_after_any_call(
    tracked: TrackedSweep,
    tmp_path: Path,
    name: str,
    before: Callable[[RunSync, RunSpec], None],
    way: Callable[[RunSync, RunSpec, str], None],
) -> None:
    ((of, state),) = [(of, state) for of, state in STATES if of.name == name]
    died_after = cut_after_every_call(tmp_path, tracked.storage, of, state, before, way)
    expected = {"log_batch"} if before is finished_without_model_before else {"log_batch", "set_terminated"}
    if name == "w02-r0":
        expected |= {"create_logged_model", "log_model_artifacts", "log_model_artifact", "finalize_logged_model"}
        expected |= {"log_inputs", "log_outputs"}
    assert expected <= set(died_after)


def cut_after_every_call(
    root: Path,
    storage: Storage,
    of: RunSpec,
    state: str,
    before: Callable[[RunSync, RunSpec], None],
    way: Callable[[RunSync, RunSpec, str], None],
) -> list[str]:
    """Lets a projection die after its first call, its second and so on, and compares what `sync` makes of each.

    Returns:
        The calls after which it died.
    """
    store = new_target(root)

    def target(experiment: str) -> TrackingTarget:
        return TrackingTarget(uri=store.uri, experiment=experiment, artifact_root=f"{store.artifact_root}/{experiment}")

    synced(target("whole"), storage, [(of, state)])
    whole = Content(target("whole")).plain(ids=False)
    died_after: list[str] = []
    while True:
        place = target(f"after-{len(died_after) + 1}")
        before(open_sync(place, storage), of)
        sync = RunSync(place, storage, SWEEP)
        calls = recorded(sync, die_after=len(died_after) + 1).calls
        try:
            sync.open_sweep(DESCRIPTION, PARAMS, {"drive.version": "1"}, start_ms=1)
            way(sync, of, state)
            return died_after
        except ProcessEndedError:
            died_after.append(calls[-1])
        synced(place, storage, [(of, state)])
        assert without_starts(Content(place).plain(ids=False)) == without_starts(whole), died_after


def test_sync_completes_a_stopped_trial_that_got_further(tracked: TrackedSweep, tmp_path: Path) -> None:
    one, storage = item("w02-r0"), LocalStorage(str(tmp_path / "storage"))
    file = f"trials/{one.key}/metrics.jsonl"
    storage.write(file, tracked.storage.read(file) or b"")

    def stopped_earlier(sync: RunSync, of: RunSpec) -> None:
        now = sync.storage.read(file) or b""
        lines = now.splitlines(keepends=True)
        sync.storage.write(file, b"".join(lines[: len(lines) // 2]))
        sync.stop(of)
        sync.storage.write(file, now)

    died_after = cut_after_every_call(tmp_path, storage, one, "stopped", stopped_earlier, from_its_record)
    assert {"log_batch", "set_terminated"} <= set(died_after)


def test_sync_completes_a_run_whose_trial_left_and_returned(tracked: TrackedSweep, tmp_path: Path) -> None:
    target, states = new_target(tmp_path), [(item("w00-stopped"), "stopped")]
    sync = open_sync(target, tracked.storage)
    recorded(sync, die_after=1)
    with pytest.raises(ProcessEndedError, match="create_run"):
        at_once(sync, *states[0])
    synced(target, tracked.storage, [])
    assert Content(target).named("w00-stopped")["status"] == "KILLED"
    synced(target, tracked.storage, states)
    run = Content(target).named("w00-stopped")
    assert run["points"] == published(tracked.storage, item("w00-stopped"))
    assert run["end"] == max(point[3] for point in run["points"])
