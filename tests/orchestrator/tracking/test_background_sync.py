"""The tracking thread: few calls, no blocking, and no loss while the server is away."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from orchestrator.errors import SetupError
from orchestrator.tracking.background_sync import TrackingThread
from orchestrator.tracking.client import TrackingTarget
from orchestrator.tracking.records import RunSpec
from orchestrator.tracking.run_sync import RunSync
from orchestrator.tracking.sweep_summary import SweepSummary
from orchestrator.tracking.ui_server import serve
from tests.support.mlflow_stores import Content, new_target, recorded
from tests.support.tracked_sweep import (
    STATES,
    SUMMARY,
    SWEEP,
    TRIALS,
    WARMUP,
    TrackedSweep,
    copies,
    item,
    open_sync,
    points_of,
    published,
)
from trainables.records.metrics import Point


def test_thread_reports_run_ids_and_cpu_time(tracked: TrackedSweep) -> None:
    names = Content(tracked.target).names
    assert {names[run_id] for run_id in tracked.thread.run_ids.values()} == {WARMUP.name, *TRIALS}
    assert names[tracked.thread.parent_run_id] == SWEEP
    assert tracked.thread.last_error is None
    assert 0.0 < tracked.thread.cpu_seconds < 30.0


def test_thread_does_not_count_the_import_of_mlflow_as_cpu_time(tracked: TrackedSweep, tmp_path: Path) -> None:
    target, worked = new_target(tmp_path), 0.0

    def import_slowly() -> None:
        nonlocal worked
        started_at = time.thread_time()
        while worked < 1.0:
            worked = time.thread_time() - started_at

    thread = TrackingThread(lambda: open_sync(target, tracked.storage), interval_s=0.05, import_first=import_slowly)
    thread.start()
    thread.start_item(item("w00-s0.9-r1"))
    assert thread.flush(60), thread.last_error
    thread.close()
    assert worked >= 1.0
    assert 0.0 < thread.cpu_seconds < 1.0


@pytest.mark.parametrize("log_models", [True, False])
def test_calls_per_trial_do_not_grow_with_the_sweep(tracked: TrackedSweep, tmp_path: Path, log_models: bool) -> None:
    of_one = ["create_run", "log_inputs", "log_text", "log_batch", "set_terminated"]
    if log_models:
        upload = ["create_logged_model", "log_model_artifacts", "log_model_artifact", "finalize_logged_model", "log_outputs"]
        of_one[3:3] = upload
    for number in (3, 12):
        root = tmp_path / str(number)
        target = new_target(root)
        storage, items = copies(tracked.storage, root / "storage", number)
        sync = open_sync(target, storage, log_models=log_models)
        calls = recorded(sync).calls
        thread = TrackingThread(lambda sync=sync: sync, interval_s=0.05)  # type: ignore[misc]
        thread.reconcile([(each, "waiting") for each in items])
        for each in items:
            thread.start_item(each)
            thread.points(each, points_of(storage, each))
            thread.finish(each)
        thread.start()
        assert thread.flush(60), thread.last_error
        thread.close()
        assert [call for call in calls if not call.startswith("search")] == of_one * number
        assert [call for call in calls if call.startswith("search")] == ["search_runs"] + ["search_logged_models"] * log_models
        content = Content(target)
        assert {content.run(run)["status"] for run in content.runs if run.info.run_name != SWEEP} == {"FINISHED"}
        assert [content.run(run)["points"] for run in content.runs if run.info.run_name != SWEEP] == [
            published(tracked.storage, item("w02-r0"))
        ] * number
        assert len(content.models) == number * log_models


def status(base: str, host: str) -> int:
    """Of an answer to a request under another name, as a page that had its name point here would send it."""
    search = f"{base}/api/2.0/mlflow/experiments/search"
    return requests.post(search, json={"max_results": 5}, headers={"Host": host}, timeout=60).status_code


def listeners(port: int) -> set[str]:
    """The addresses at which something listens on a port."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    places = [fields[1].split(":") for fields in lines if fields[3] == "0A"]
    return {socket.inet_ntoa(bytes.fromhex(address)[::-1]) for address, number in places if int(number, 16) == port}


@pytest.mark.long
def test_outage_of_the_server_loses_nothing(tracked: TrackedSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where the server puts the artifacts that it is sent
    database = TrackingTarget(uri=new_target(tmp_path).uri, experiment="pruning", artifact_root=None)
    one, two = item("w02-r0"), item("w00-s0.9-r1")
    points = points_of(tracked.storage, one)
    with serve(database, port=0) as base:
        target = TrackingTarget(uri=base, experiment="pruning", artifact_root=None)
        thread = TrackingThread(lambda: open_sync(target, tracked.storage), interval_s=0.05)
        thread.start()
        thread.start_item(one)
        thread.points(one, points[:3])
        assert thread.flush(60), thread.last_error
        with pytest.raises(SetupError, match=r"port \d+ is taken.*--port"), serve(database, port=port_of(base)):
            pass
        assert [status(base, host) for host in ("evil.example", "192.168.0.1", f"localhost:{port_of(base)}")] == [403, 403, 200]
        assert listeners(port_of(base)) == {"127.0.0.1"}
    calls: list[Callable[[], None]] = [
        lambda: thread.points(one, points[3:]),
        lambda: thread.finish(one),
        lambda: thread.start_item(two),
        lambda: thread.finish(two),
        lambda: thread.close_sweep("FINISHED", SUMMARY),
    ]
    assert max(duration_s(call, pause_s=0.2) for call in calls) < 0.1, "no call waits for the server"
    assert duration_s(lambda: thread.flush(60)) < 30, "gives up long before the deadline"
    assert thread.pending == 5
    assert thread.last_error is not None
    with serve(database, port=port_of(base)):
        assert thread.flush(60), thread.last_error
        thread.close()
        assert thread.pending == 0
        content = Content(target)
        assert content.named(one.name)["points"] == published(tracked.storage, one)
        assert content.named(two.name)["status"] == "FINISHED"
        assert content.named(SWEEP)["status"] == "FINISHED"
        assert sorted(model.name for model in content.models) == ["sparse-w00-s0_9-r1", "sparse-w02-r0"]
        for model in content.models:
            (file,) = tmp_path.glob(f"mlartifacts/**/{model.model_id}/artifacts/artifacts/model.safetensors.zst")
            of = one if model.name == "sparse-w02-r0" else two
            assert file.read_bytes() == tracked.storage.read(f"trials/{of.key}/model.safetensors.zst")


@pytest.mark.parametrize("together", [True, False])
def test_flush_waits_as_long_as_something_gets_in(
    together: bool, tracked: TrackedSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run takes less than a standstill may take and all of them more, in one event or in many."""
    target, items = new_target(tmp_path), [one for one, state in STATES if state == "finished" and one.role == "trial"]
    thread = TrackingThread(lambda: open_sync(target, tracked.storage), interval_s=0.05)
    thread.start()
    thread.summarize(SUMMARY)
    assert thread.flush(60), thread.last_error
    finish = RunSync.finish

    def slowly(sync: RunSync, *arguments: Any) -> Any:
        time.sleep(0.7)
        return finish(sync, *arguments)

    monkeypatch.setattr(RunSync, "finish", slowly)
    if together:
        thread.reconcile([(one, "finished") for one in items])
    else:
        for one in items:
            thread.finish(one)
    began, before = time.monotonic(), thread.progress
    assert thread.flush(stalled_s=2.0), "there was progress all the time"
    assert time.monotonic() - began > 2.0
    assert thread.progress - before >= len(items)
    thread.reconcile([(one, "finished") for one in items])
    assert not thread.flush(stalled_s=2.0, most_s=0.3)
    thread.close()


def test_of_several_summaries_the_last_one_counts(tracked: TrackedSweep, tmp_path: Path) -> None:
    target = new_target(tmp_path)
    thread = TrackingThread(lambda: open_sync(target, tracked.storage), interval_s=0.05)
    for step in (1, 2):
        thread.summarize(SweepSummary(description=f"after {step}", metrics={"best/s0.9/a": 0.5}, step=step, time_ms=step))
    thread.start()
    assert thread.flush(60), thread.last_error
    assert Content(target).named(SWEEP)["status"] == "RUNNING"
    thread.close_sweep("FINISHED", SweepSummary(description="at the end", metrics={"best/s0.9/a": 0.5}, step=3, time_ms=3))
    assert thread.flush(60), thread.last_error
    thread.close()
    run = Content(target).named(SWEEP)
    assert (run["status"], run["tags"]["mlflow.note.content"]) == ("FINISHED", "at the end")
    assert [point[1] for point in run["points"] if point[0] == "trials/finished"] == [2, 3]


def port_of(base: str) -> int:
    return int(base.rpartition(":")[2])


def duration_s(call: Callable[[], object], pause_s: float = 0.0) -> float:
    started_at = time.monotonic()
    call()
    took = time.monotonic() - started_at
    time.sleep(pause_s)
    return took


def test_thread_without_a_server_reports_and_never_raises(tracked: TrackedSweep) -> None:
    target = TrackingTarget(uri="http://127.0.0.1:9", experiment="pruning", artifact_root=None)
    thread = TrackingThread(lambda: open_sync(target, tracked.storage), interval_s=0.05)
    thread.start()
    thread.start_item(WARMUP)
    thread.points(WARMUP, [Point("val/accuracy", 1, 0.5, 1000)])
    thread.fail(WARMUP, "diverged")
    thread.reconcile(STATES)
    started_at = time.monotonic()
    assert not thread.flush(60)
    assert time.monotonic() - started_at < 30
    assert thread.pending == 4
    assert thread.last_error is not None
    assert "drive-sweep sync" in thread.last_error
    thread.close()
    assert thread.pending == 4


def test_item_that_cannot_be_sent_does_not_hold_up_the_others(tracked: TrackedSweep, tmp_path: Path) -> None:
    target = new_target(tmp_path)
    thread = TrackingThread(lambda: open_sync(target, tracked.storage), interval_s=0.05)
    thread.start()
    missing = RunSpec(key="0" * 16, name="no-record", role="trial", params={}, tags={})
    thread.finish(missing)
    thread.finish(item("w00-s0.9-r1"))
    thread.close_sweep("FAILED", SweepSummary())
    assert not thread.flush(60)
    thread.close()
    assert thread.pending == 1
    assert "no result.json" in (thread.last_error or "")
    content = Content(target)
    assert content.named("w00-s0.9-r1")["status"] == "FINISHED"
    assert content.named(SWEEP)["status"] == "FAILED"


def test_late_reconcile_ends_no_run_that_started_since(
    tracked: TrackedSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, tries, reconcile = new_target(tmp_path), 0, RunSync.reconcile

    def second_time(sync: RunSync, items: list[tuple[RunSpec, str]]) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise SetupError("away for a moment")
        reconcile(sync, items)

    monkeypatch.setattr(RunSync, "reconcile", second_time)
    open_sync(target, tracked.storage).start(item("w00-s0.9-r1"))
    thread = TrackingThread(lambda: open_sync(target, tracked.storage), interval_s=0.05)
    thread.reconcile([(item("w00-s0.9-r1"), "waiting")])
    thread.start_item(item("w00-s0.9-r1"))
    thread.start()
    assert thread.flush(60), thread.last_error
    thread.close()
    assert tries == 2
    assert Content(target).named("w00-s0.9-r1")["status"] == "RUNNING"


def test_replaced_database_gets_the_whole_sweep(tracked: TrackedSweep, tmp_path: Path) -> None:
    target = new_target(tmp_path)
    thread = TrackingThread(lambda: open_sync(target, tracked.storage), interval_s=0.05)
    thread.reconcile([(each, "waiting") for each, _ in STATES])
    for name in ("w02-r0", "w00-s0.9-r1"):
        thread.start_item(item(name))
        thread.finish(item(name))
    thread.start()
    assert thread.flush(60), thread.last_error
    former = dict(thread.run_ids)
    for suffix in ("", "-wal", "-shm"):
        Path(f"{tmp_path}/mlflow.db{suffix}").unlink(missing_ok=True)
    new_target(tmp_path)
    thread.finish(item("w02-i001-r0"))
    assert thread.flush(60), thread.last_error
    thread.close()
    content = Content(target)
    run_ids = {run.info.run_name: run.info.run_id for run in content.runs if run.info.status == "FINISHED"}
    for name in ("w02-r0", "w00-s0.9-r1", "w02-i001-r0"):
        assert run_ids[name] == thread.run_ids[item(name).key] != former.get(item(name).key)


def test_importing_tracking_is_cheap() -> None:
    modules = "orchestrator.tracking.background_sync, orchestrator.tracking.ui_server"
    script = f"import sys, {modules}; print({{'mlflow', 'torch', 'ray'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
