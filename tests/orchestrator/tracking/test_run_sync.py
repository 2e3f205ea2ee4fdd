"""Trial folders -> MLflow: the same content whether the server was there or not, and syncing twice changes nothing."""

from __future__ import annotations

import csv
import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import SetupError
from orchestrator.storage.local import LocalStorage
from orchestrator.tracking.client import TrackingTarget, connect
from orchestrator.tracking.records import RunSpec
from orchestrator.tracking.run_sync import RunSync
from orchestrator.tracking.sweep_summary import SweepSummary
from tests.support.mlflow_stores import Content, empty_database, new_target, recorded
from tests.support.tracked_sweep import (
    ARTIFACTS,
    DESCRIPTION,
    PARAMS,
    STATES,
    SUMMARY,
    SWEEP,
    TRIALS,
    WARMUP,
    TrackedSweep,
    item,
    open_sync,
    points_of,
    published,
    record,
    synced,
    without_starts,
)
from tests.support.trials import write_result
from trainables.data.digits import DIGITS_DIGEST
from trainables.records.latency_record import encode_latency
from trainables.records.metrics import Point, points_from_lines


def test_sync_shows_a_sweep_as_if_it_had_had_a_server(tracked: TrackedSweep, tmp_path: Path) -> None:
    target = new_target(tmp_path)
    synced(target, tracked.storage)
    there, made_up = Content(tracked.target).plain(ids=False), Content(target).plain(ids=False)
    assert without_starts(made_up) == without_starts(there)
    assert [run["name"] for run in there["runs"]] == sorted([SWEEP, WARMUP.name, *TRIALS])
    assert len(there["models"]) == 3
    # MLflow cannot move a start: while the sweep runs it is when the driver began, afterwards what the record says.
    for name in ("w00-s0.9-r1", "w02-r0"):
        recorded_start = record(tracked.storage, item(name), "result.json")["started_ms"]
        assert Content(target).named(name)["start"] == recorded_start
        assert Content(tracked.target).named(name)["start"] >= recorded_start - 5000


def test_measured_latency_joins_the_run_of_its_trial(tracked: TrackedSweep, tmp_path: Path) -> None:
    storage, target = LocalStorage(str(tmp_path / "runs")), new_target(tmp_path)
    shutil.copytree(tracked.storage.root, storage.root, dirs_exist_ok=True)
    synced(target, storage)
    one = item("w02-r0")
    measurement = {
        "batch": 1,
        "time_ms": 1_700_000_000_000,
        "processor": "a processor",
        "threads": 2,
        "milliseconds": {"dense": [4.0, 3.9, 4.1], "removed": [2.0, 1.9, 2.1]},
        "speedups": {"removed": [2.0, 1.9, 2.1]},
        "fastest": "removed",
        "verdict": "faster",
    }
    runs = len(Content(target).plain(ids=False)["runs"])
    for count in (1, 2):
        storage.write(f"trials/{one.key}/latency.json", encode_latency(one.key, [measurement] * count))
        for _ in range(2):
            synced(target, storage)
            run = Content(target).named(one.name)
            speedups = [point for point in run["points"] if point[0] == "latency/batch1/speedup"]
            assert [(point[1], point[2]) for point in speedups] == [(step, 2.0) for step in range(count)]
            assert len(run["tags"]["drive.latency"].splitlines()) == count
        assert "removed is faster than dense: 2.00 times" in run["tags"]["drive.latency"]
    assert len(Content(target).plain(ids=False)["runs"]) == runs


def test_runs_hold_exactly_the_published_points(tracked: TrackedSweep) -> None:
    content = Content(tracked.target)
    for name in TRIALS:
        run = content.named(name)
        assert run["points"] == published(tracked.storage, item(name))
        assert len({point[:2] for point in run["points"]}) == len(run["points"])
    assert content.named("w00-stopped")["points"], "it was stopped after its first round"
    warmup = content.named(WARMUP.name)
    assert [point[:2] for point in warmup["points"] if point[0] == "val/accuracy"] == [("val/accuracy", 1), ("val/accuracy", 2)]


def test_run_states_times_and_tags_follow_the_records(tracked: TrackedSweep) -> None:
    content = Content(tracked.target)
    statuses = {run.info.run_name: run.info.status for run in content.runs}
    assert statuses.pop("w00-diverges") == "FAILED"
    assert statuses.pop("w00-stopped") == "KILLED"
    assert set(statuses.values()) == {"FINISHED"}
    failed, error = content.named("w00-diverges"), record(tracked.storage, item("w00-diverges"), "error.json")
    assert failed["tags"]["drive.failure"] == error["message"]
    assert failed["tags"]["drive.failure_kind"] == "nonfinite"
    assert failed["end"] == error["time"]
    done, result = content.named("w02-r0"), record(tracked.storage, item("w02-r0"), "result.json")
    assert done["end"] == result["finished_ms"]
    expected = {
        "drive.attempt": "1",
        "drive.model_sha256": result["model_sha256"],
        "drive.model_id": "sparse-w02-r0",
        "drive.revision": "abc1234",
        "drive.mask_sha256": result["mask_sha256"],
        "drive.device": result["device"],
        "drive.role": "trial",
        "drive.sweep": SWEEP,
        "drive.trial_key": item("w02-r0").key,
        "mlflow.parentRunId": SWEEP,
    }
    assert expected.items() <= done["tags"].items()
    ((dataset, _),) = done["inputs"]
    assert (dataset["name"], dataset["digest"]) == ("digits", DIGITS_DIGEST)


def test_run_holds_the_layer_table_of_its_record(tracked: TrackedSweep, tmp_path: Path) -> None:
    content = Content(tracked.target)
    (run,) = [run for run in content.runs if run.info.run_name == "w02-r0"]
    file = Path(content.client.download_artifacts(run.info.run_id, "layers.csv", str(tmp_path)))
    with open(file) as opened:
        rows = list(csv.DictReader(opened))
    layers = record(tracked.storage, item("w02-r0"), "result.json")["layers"]
    expected = [
        {key: "x".join(map(str, value)) if key == "shape" else str(value) for key, value in layer.items()} for layer in layers
    ]
    assert rows == expected
    assert list(rows[0]) == ["name", "shape", "kept", "density", "flops", "kept_flops", "score_mean", "score_std"]
    assert rows[0]["shape"] == "16x1x3x3"


def test_second_sync_changes_nothing_and_makes_few_calls(tracked: TrackedSweep, tmp_path: Path) -> None:
    target = new_target(tmp_path)
    synced(target, tracked.storage)
    before = Content(target).plain(ids=True)
    sync = RunSync(target, tracked.storage, SWEEP)
    calls = recorded(sync).calls
    sync.open_sweep(DESCRIPTION, PARAMS, {"drive.version": "1"}, reopen=False)
    sync.reconcile(STATES)
    sync.close_sweep("FINISHED", SUMMARY)
    assert calls == ["search_runs", "search_runs", "search_logged_models", "get_experiment"]
    assert Content(target).plain(ids=True) == before


def test_trial_that_is_finished_after_an_early_stop_shows_none(tracked: TrackedSweep, tmp_path: Path) -> None:
    target, one = new_target(tmp_path), item("w02-r0")
    stopped = replace(one, tags=one.tags | {"drive.stopped": "it is behind", "drive.rung": "1"})
    sync = open_sync(target, tracked.storage, log_models=False)
    sync.stop(stopped)
    assert stopped.tags.items() <= Content(target).named(one.name)["tags"].items()
    sync.finish(stopped)
    assert not {"drive.stopped", "drive.rung"} & set(Content(target).named(one.name)["tags"])


def test_interrupted_trial_continues_in_its_run(tracked: TrackedSweep, tmp_path: Path) -> None:
    target, one = new_target(tmp_path), item("w02-r0")
    sync = open_sync(target, tracked.storage)
    points = points_from_lines(tracked.storage.read(f"trials/{one.key}/metrics.jsonl") or b"")
    first = sync.start(one)
    sync.add_points(one, points[:5])
    sync.fail(one, "lost its process")
    assert Content(target).named(one.name)["tags"]["drive.failure"] == "lost its process"
    sync = open_sync(target, tracked.storage)
    assert sync.start(one) == first
    running = Content(target).named(one.name)
    assert running["status"] == "RUNNING"
    assert "drive.failure" not in running["tags"]
    sync.add_points(one, points)
    sync.add_points(one, points)
    assert sync.finish(one) == first
    assert Content(target).named(one.name)["points"] == published(tracked.storage, one)
    synced(target, tracked.storage)
    other = new_target(tmp_path / "other")
    synced(other, tracked.storage)
    assert without_starts(Content(target).plain(ids=False)) == without_starts(Content(other).plain(ids=False))


def test_recomputed_trial_gets_a_new_run(tracked: TrackedSweep, tmp_path: Path) -> None:
    target, one = new_target(tmp_path), item("w00-s0.9-r1")
    storage = LocalStorage(str(tmp_path / "storage"))
    shutil.copytree(Path(tracked.storage.root, f"trials/{one.key}"), Path(storage.root, f"trials/{one.key}"))
    synced(target, storage, [(one, "finished")])
    later = [point.to_json() | {"time": point.time_ms + 60_000} for point in points_of(storage, one)]
    storage.write(f"trials/{one.key}/metrics.jsonl", b"".join(json.dumps(line).encode() + b"\n" for line in later))
    result = record(storage, one, "result.json")
    write_result(storage, one.key, result | {"finished_ms": result["finished_ms"] + 60_000})
    for _ in range(2):
        synced(target, storage, [(one, "finished")])
        content = Content(target)
        runs = [content.run(run) for run in content.runs if run.info.run_name == one.name]
        assert sorted(run["tags"].get("drive.superseded", "") for run in runs) == ["", "recomputed"]
        for run in runs:
            assert len({point[:2] for point in run["points"]}) == len(run["points"])
        assert len(content.models) == 1, "equal weights are one model"


def test_warmup_that_repeats_an_epoch_keeps_its_first_points(tracked: TrackedSweep, tmp_path: Path) -> None:
    target = new_target(tmp_path)
    sync = open_sync(target, tracked.storage)
    sync.start(WARMUP)
    sync.add_points(WARMUP, [Point("val/accuracy", 2, 0.5, 1000)])
    sync = open_sync(target, tracked.storage)
    sync.start(WARMUP)
    sync.finish(WARMUP)
    points = [point for point in Content(target).named(WARMUP.name)["points"] if point[:2] == ("val/accuracy", 2)]
    assert points == [("val/accuracy", 2, 0.5, 1000)]


def test_runs_outside_the_sweep_are_superseded_until_they_return(tracked: TrackedSweep, tmp_path: Path) -> None:
    target = new_target(tmp_path)
    synced(target, tracked.storage)
    before = Content(target).plain(ids=True)
    synced(target, tracked.storage, STATES[:2])
    content = Content(target)
    assert {run.info.run_name for run in content.runs if run.data.tags.get("drive.superseded") == "true"} == {
        "w02-i001-r0",
        "w00-s0.9-r1",
        "w00-diverges",
        "w00-stopped",
    }
    assert content.named("w00-diverges")["status"] == "FAILED"
    synced(target, tracked.storage)
    assert Content(target).plain(ids=True) == before


def test_reconcile_leaves_no_run_running_without_a_running_item(tracked: TrackedSweep, tmp_path: Path) -> None:
    target = new_target(tmp_path)
    sync = open_sync(target, tracked.storage)
    for name in ("w00-stopped", "w00-s0.9-r1", "w00-diverges"):
        sync.start(item(name))
    open_sync(target, tracked.storage).reconcile([(item("w00-stopped"), "waiting"), (item("w00-s0.9-r1"), "running")])
    content = Content(target)
    assert content.named("w00-stopped")["status"] == "KILLED"
    assert content.named("w00-stopped")["points"] == published(tracked.storage, item("w00-stopped"))
    assert content.named("w00-s0.9-r1")["status"] == "RUNNING"
    assert content.named("w00-diverges")["status"] == "KILLED", "it is no item any more"


def test_edited_sweep_renames_runs_and_adds_params(tracked: TrackedSweep, tmp_path: Path) -> None:
    target, one = new_target(tmp_path), item("w00-s0.9-r1")
    synced(target, tracked.storage, [(one, "finished")])
    wider = RunSpec(key=one.key, name="w00-i003-s0.9-r1", role="trial", params=one.params | {"sparsity": "0.9"}, tags=one.tags)
    synced(target, tracked.storage, [(wider, "finished")])
    content = Content(target)
    assert len(content.runs) == 2
    assert content.named("w00-i003-s0.9-r1")["params"] == wider.params


def test_artifacts_are_uploaded_when_they_changed(tracked: TrackedSweep, tmp_path: Path) -> None:
    target = new_target(tmp_path)
    sync = open_sync(target, tracked.storage)
    named_by_an_axis = {"heatmap-s0.9-training.epochs=2.png": b"png"}
    sync.close_sweep("FINISHED", SweepSummary(artifacts=ARTIFACTS | named_by_an_axis))
    calls = recorded(sync).calls
    more = ARTIFACTS | named_by_an_axis | {"report.html": b"<p>more</p>"}
    sync.close_sweep("FINISHED", SweepSummary(artifacts=more))
    assert calls.count("log_artifact") == 1
    (run,) = Content(target).runs
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    assert (folder / "report.html").read_bytes() == b"<p>more</p>"
    assert (folder / "figures/heat.png").read_bytes() == ARTIFACTS["figures/heat.png"]
    assert (folder / "heatmap-s0.9-training.epochs=2.png").read_bytes() == b"png"


@pytest.mark.parametrize("name", ["metrics.jsonl", "model.safetensors.zst"])
def test_file_overwritten_by_a_late_attempt_is_reported(tracked: TrackedSweep, tmp_path: Path, name: str) -> None:
    storage, one = LocalStorage(str(tmp_path / "storage")), item("w02-r0")
    shutil.copytree(tracked.storage.root, storage.root)
    file = storage.path(f"trials/{one.key}/{name}")
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-1]))
    target = new_target(tmp_path)
    message = rf"w02-r0.*{name} (has|does not match) .*; .*drive-sweep resume {SWEEP}"
    with pytest.raises(SetupError, match=message):
        synced(target, storage, [(one, "finished")])
    assert "FINISHED" not in [run.info.status for run in Content(target).runs if run.info.run_name == "w02-r0"]


def test_sync_restores_what_was_deleted_in_mlflow(tracked: TrackedSweep, tmp_path: Path) -> None:
    target = new_target(tmp_path)
    synced(target, tracked.storage)
    before = Content(target).plain(ids=True)
    client, experiment_id = connect(target)
    client.delete_experiment(experiment_id)
    with pytest.raises(SetupError, match=r"'pruning' .*, which is; the next `run`, `resume` or `sync` of a sweep restores it"):
        connect(target, restore=False)
    remarks: list[str] = []
    assert connect(target, remarks.append)[1] == experiment_id
    assert remarks == ["experiment 'pruning' was deleted in MLflow; it is restored with its runs"]
    assert Content(target).plain(ids=True) == before

    content = Content(target)
    deleted = [run.info.run_id for run in content.runs if run.info.run_name in (SWEEP, "w00-diverges")]
    for run_id in deleted:
        client.delete_run(run_id)
    synced(target, tracked.storage)
    assert without_starts(Content(target).plain(ids=False)) == without_starts(Content(tracked.target).plain(ids=False))
    assert not set(deleted) & {run.info.run_id for run in Content(target).runs}

    client.delete_logged_model(next(model.model_id for model in Content(target).models))
    assert len(Content(target).models) == 2
    synced(target, tracked.storage)
    content = Content(target)
    shown = {run.data.tags["drive.model_id"] for run in content.runs if "drive.model_id" in run.data.tags}
    assert shown == {model.model_id for model in content.models if str(model.status) == "READY"}
    assert len(shown) == 3


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "nonsense://x"])
def test_connect_rejects_an_unusable_uri(uri: str) -> None:
    with pytest.raises(SetupError, match=rf"tracking {uri} cannot be used: .*--tracking-uri"):
        connect(TrackingTarget(uri=uri, experiment="pruning", artifact_root=None))


def test_sync_is_silent_and_ignores_mlflow_variables(
    tracked: TrackedSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert empty_database()[1] == "", "making the database"
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        synced(new_target(tmp_path), tracked.storage)
    assert capfd.readouterr() == ("", "")
