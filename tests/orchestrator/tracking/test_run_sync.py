"""Trial folders -> MLflow: the same content whether the server was there or not, and doing it twice changes nothing."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import SetupError
from orchestrator.execution.sync import sync_sweep
from orchestrator.planning.plan import make_plan
from orchestrator.spec.loader import load_spec
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.base import Storage
from orchestrator.storage.layout import StageFolders, TrialFolder
from orchestrator.storage.local import LocalStorage
from orchestrator.tracking.background_sync import TrackingThread
from orchestrator.tracking.client import TrackingTarget, connect
from orchestrator.tracking.records import RunSpec, read_record
from orchestrator.tracking.run_sync import RunSync
from orchestrator.tracking.ui_server import compare_url, run_url, serve
from tests.support.mlflow_stores import Content, ProcessEndedError, empty_database, new_target, recorded
from tests.support.trials import tiny_config, tiny_settings, tiny_training, write_result
from trainables.config.keys import canonical, trial_key, warmup_key
from trainables.data.datasets import DIGITS_DIGEST
from trainables.records.metrics import Point, points_from_json, points_from_lines
from trainables.worker.trainable import Stage, execute_stage

SWEEP = "tiny"
DESCRIPTION = "a sweep of **tests**"
PARAMS = {"training.epochs": "2"}
ARTIFACTS = {"report.html": b"<p>done</p>", "figures/heat.png": b"not really"}
TRIALS = {
    "w02-r0": tiny_config(seed=0),
    "w02-i001-r0": tiny_config(seed=0, prune_iterations=1),
    "w00-s0.9-r1": tiny_config(seed=1, warmup_epochs=0),
    "w00-diverges": tiny_config(seed=2, warmup_epochs=0, training=tiny_training(lr=1e30)),
    "w00-stopped": tiny_config(seed=3, warmup_epochs=0),
}


def item(name: str) -> RunSpec:
    config = TRIALS[name]
    params = {"method": config.method, "seed": str(config.seed), "prune_iterations": str(config.prune_iterations)}
    return RunSpec(key=trial_key(config, DIGITS_DIGEST), name=name, role="trial", params=params, tags={"drive.version": "1"})


TRUNK = RunSpec(key=warmup_key(TRIALS["w02-r0"], DIGITS_DIGEST), name="warmup-r0", role="warmup", params={"seed": "0"}, tags={})
STATES = [(TRUNK, "finished")] + [
    (item(name), {"w00-diverges": "failed", "w00-stopped": "stopped"}.get(name, "finished")) for name in TRIALS
]


@dataclass(frozen=True)
class LiveSweep:
    """A sweep that ran with its tracking server up."""

    storage: Storage
    target: TrackingTarget
    thread: TrackingThread


class StoppedSoon(TrialFolder):
    """Is asked to stop right after the trial has begun to write."""

    def publish(self, name: str, content: bytes) -> None:
        super().publish(name, content)
        self.stop_asked = True


class StoppingFolders(StageFolders):
    def trial(self, key: str, attempt: int) -> TrialFolder:
        folder = StoppedSoon(self.storage, key, attempt, self.sweep)
        folder.claim_attempt()
        return folder


def run_stage(storage: Storage, thread: TrackingThread, of: RunSpec, stage: Stage) -> None:
    """One stage in this process, its news told as the driver tells them."""
    storage.write_json(f"sweeps/{SWEEP}/trials.json", {})  # without it the storage would be another one
    folders = StoppingFolders if of.name == "w00-stopped" else StageFolders
    settings = tiny_settings(folders(storage, SWEEP), share_warmups=True)

    def hear(report: dict[str, Any]) -> None:
        thread.points(of, [points_from_json(point) for point in report.get("points", ())])

    thread.start_item(of)
    ended = execute_stage(stage, settings, hear)
    hear(ended)
    if ended["status"] == "finished":
        thread.finish(of)
    elif ended["status"] == "stopped":
        thread.stop(of)
    else:
        thread.fail(of, ended["message"])


def trial_stage(name: str) -> Stage:
    config = TRIALS[name]
    shared = warmup_key(config, DIGITS_DIGEST)
    return Stage(
        kind="trial", key=item(name).key, name=name, config=canonical(config), attempt=1, warmup_key=shared, lengths=()
    )


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveSweep]:
    storage = LocalStorage(str(tmp_path_factory.mktemp("storage")))
    target = new_target(tmp_path_factory.mktemp("live"))
    thread = TrackingThread(lambda: opened(target, storage), interval_s=0.05)
    thread.start()
    thread.reconcile([(each, "waiting") for each, _ in STATES])
    trunk = canonical(TRIALS["w02-r0"])
    stage = Stage(kind="warmup", key=TRUNK.key, name=TRUNK.name, config=trunk, attempt=1, lengths=(2,))
    run_stage(storage, thread, TRUNK, stage)
    for name in TRIALS:
        run_stage(storage, thread, item(name), trial_stage(name))
    thread.close_sweep("FINISHED", ARTIFACTS)
    assert thread.flush(60), thread.last_error
    yield LiveSweep(storage, target, thread)
    thread.close()


def opened(
    target: TrackingTarget, storage: Storage, sweep: str = SWEEP, *, log_models: bool = True, reopen: bool = True
) -> RunSync:
    mirror = RunSync(target, storage, sweep, log_models=log_models)
    mirror.open_sweep(DESCRIPTION, PARAMS, {"drive.version": "1"}, start_ms=1, reopen=reopen)
    return mirror


def synced(
    target: TrackingTarget,
    storage: Storage,
    states: list[tuple[RunSpec, str]] = STATES,
    sweep: str = SWEEP,
    *,
    log_models: bool = True,
) -> RunSync:
    """What `sync` does."""
    mirror = opened(target, storage, sweep, log_models=log_models, reopen=False)
    mirror.reconcile(states)
    mirror.close_sweep("FINISHED", ARTIFACTS)
    return mirror


def record(storage: Storage, of: RunSpec, name: str) -> Any:
    return storage.read_json(f"trials/{of.key}/{name}")


def published(storage: Storage, of: RunSpec) -> list[tuple[str, int, float, int]]:
    points = points_from_lines(storage.read(f"trials/{of.key}/metrics.jsonl") or b"")
    return sorted((point.key, point.step, point.value, point.time_ms) for point in points)


def without_starts(content: dict[str, Any]) -> dict[str, Any]:
    return content | {"runs": [run | {"start": None} for run in content["runs"]]}


def test_a_sweep_without_server_looks_the_same_after_sync(live: LiveSweep, tmp_path: Path) -> None:
    target = new_target(tmp_path)
    synced(target, live.storage)
    there, made_up = Content(live.target).plain(ids=False), Content(target).plain(ids=False)
    assert without_starts(made_up) == without_starts(there)
    assert [run["name"] for run in there["runs"]] == sorted([SWEEP, TRUNK.name, *TRIALS])
    assert len(there["models"]) == 3
    # MLflow cannot move a start: while the sweep runs it is when the driver began, afterwards what the record says.
    for name in ("w00-s0.9-r1", "w02-r0"):
        recorded_start = record(live.storage, item(name), "result.json")["started_ms"]
        assert Content(target).named(name)["start"] == recorded_start
        assert Content(live.target).named(name)["start"] >= recorded_start - 5000


def test_runs_hold_exactly_the_published_points(live: LiveSweep) -> None:
    content = Content(live.target)
    for name in TRIALS:
        run = content.named(name)
        assert run["points"] == published(live.storage, item(name))
        assert len({point[:2] for point in run["points"]}) == len(run["points"])
    assert content.named("w00-stopped")["points"], "it was stopped after its first round"
    trunk = content.named(TRUNK.name)
    assert [point[:2] for point in trunk["points"] if point[0] == "val/accuracy"] == [("val/accuracy", 1), ("val/accuracy", 2)]


def test_states_times_and_tags_follow_the_records(live: LiveSweep) -> None:
    content = Content(live.target)
    statuses = {run.info.run_name: run.info.status for run in content.runs}
    assert statuses.pop("w00-diverges") == "FAILED"
    assert statuses.pop("w00-stopped") == "KILLED"
    assert set(statuses.values()) == {"FINISHED"}
    failed, error = content.named("w00-diverges"), record(live.storage, item("w00-diverges"), "error.json")
    assert failed["tags"]["drive.failure"] == error["message"]
    assert failed["tags"]["drive.failure_kind"] == "nonfinite"
    assert failed["end"] == error["time"]
    done, result = content.named("w02-r0"), record(live.storage, item("w02-r0"), "result.json")
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


def test_a_run_holds_the_layer_table_of_its_record(live: LiveSweep, tmp_path: Path) -> None:
    content = Content(live.target)
    (run,) = [run for run in content.runs if run.info.run_name == "w02-r0"]
    file = Path(content.client.download_artifacts(run.info.run_id, "layers.csv", str(tmp_path)))
    with open(file) as opened:
        rows = list(csv.DictReader(opened))
    layers = record(live.storage, item("w02-r0"), "result.json")["layers"]
    expected = [
        {key: "x".join(map(str, value)) if key == "shape" else str(value) for key, value in layer.items()} for layer in layers
    ]
    assert rows == expected
    assert list(rows[0]) == ["name", "shape", "kept", "density", "flops", "kept_flops", "score_mean", "score_std"]
    assert rows[0]["shape"] == "16x1x3x3"


def test_the_model_shows_the_headline_metrics_with_their_data(live: LiveSweep) -> None:
    (model,) = [model for model in Content(live.target).plain(ids=False)["models"] if model["name"] == "sparse-w02-r0"]
    result = record(live.storage, item("w02-r0"), "result.json")
    assert {metric[0]: metric[2] for metric in model["metrics"]} == {
        key: result["metrics"][key] for key in ("test/accuracy", "val/accuracy", "prune/sparsity")
    }
    assert {metric[4:] for metric in model["metrics"]} == {("digits", DIGITS_DIGEST)}
    assert model["params"]["sparsity"] == "0.9"
    assert model["params"]["warmup_epochs"] == "2"
    assert model["tags"]["drive.model_sha256"] == result["model_sha256"]


def test_the_driver_learns_of_runs_and_of_the_time_spent(live: LiveSweep) -> None:
    names = Content(live.target).names
    assert {names[run_id] for run_id in live.thread.run_ids.values()} == {TRUNK.name, *TRIALS}
    assert names[live.thread.parent_run_id] == SWEEP
    assert live.thread.last_error is None
    assert 0.0 < live.thread.cpu_seconds < 30.0


def test_importing_mlflow_does_not_count_as_time_spent(live: LiveSweep, tmp_path: Path) -> None:
    target, worked = new_target(tmp_path), 0.0

    def import_slowly() -> None:
        nonlocal worked
        begun = time.thread_time()
        while worked < 1.0:
            worked = time.thread_time() - begun

    thread = TrackingThread(lambda: opened(target, live.storage), interval_s=0.05, import_first=import_slowly)
    thread.start()
    thread.start_item(item("w00-s0.9-r1"))
    assert thread.flush(60), thread.last_error
    thread.close()
    assert worked >= 1.0
    assert 0.0 < thread.cpu_seconds < 1.0


def test_syncing_twice_changes_nothing_and_asks_little(live: LiveSweep, tmp_path: Path) -> None:
    target = new_target(tmp_path)
    synced(target, live.storage)
    before = Content(target).plain(ids=True)
    mirror = RunSync(target, live.storage, SWEEP)
    calls = recorded(mirror).calls
    mirror.open_sweep(DESCRIPTION, PARAMS, {"drive.version": "1"}, reopen=False)
    mirror.reconcile(STATES)
    mirror.close_sweep("FINISHED", ARTIFACTS)
    assert calls == ["search_runs", "search_runs", "search_logged_models"]
    assert Content(target).plain(ids=True) == before


def from_its_record(mirror: RunSync, of: RunSpec, state: str) -> None:
    mirror.reconcile([(of, state)])


def at_once(mirror: RunSync, of: RunSpec, state: str) -> None:
    """As the thread does when a trial began and ended since it sent last."""
    end = {"finished": mirror.finish, "stopped": mirror.stop}.get(state, partial(mirror.fail, message=""))
    end(of, begun_ms=5, points=points_of(mirror.storage, of))


def step_by_step(mirror: RunSync, of: RunSpec, state: str) -> None:
    points = read_record(mirror.storage, of.role, of.key).points
    mirror.start(of, 5, points[:3])
    mirror.add_points(of, points[:-1])
    {"finished": mirror.finish, "stopped": mirror.stop}.get(state, partial(mirror.fail, message=""))(of)


def nothing_before(mirror: RunSync, of: RunSpec) -> None:
    pass


def a_failed_attempt_before(mirror: RunSync, of: RunSpec) -> None:
    points = points_of(mirror.storage, of)[:5]
    mirror.storage = LocalStorage(str(Path(mirror.storage.root, "of-that-time")))  # where nothing is recorded yet
    mirror.start(of)
    mirror.add_points(of, points)
    mirror.fail(of, "lost its process")


def the_same_failure_before(mirror: RunSync, of: RunSpec) -> None:
    mirror.fail(of, "")


def finished_without_model_before(mirror: RunSync, of: RunSpec) -> None:
    mirror.log_models = False
    mirror.finish(of)


@pytest.mark.parametrize(
    ("name", "before", "way"),
    [
        ("w02-r0", nothing_before, from_its_record),
        ("w02-r0", nothing_before, at_once),
        ("w02-r0", nothing_before, step_by_step),
        ("w02-r0", a_failed_attempt_before, at_once),
        ("w02-r0", finished_without_model_before, from_its_record),
        ("w00-diverges", nothing_before, from_its_record),
        ("w00-diverges", a_failed_attempt_before, at_once),
        ("w00-diverges", the_same_failure_before, at_once),
        ("w00-stopped", nothing_before, at_once),
        ("warmup-r0", nothing_before, from_its_record),
        ("warmup-r0", nothing_before, step_by_step),
    ],
)
def test_a_process_that_ends_after_any_call_leaves_nothing_twice(
    live: LiveSweep,
    tmp_path: Path,
    name: str,
    before: Callable[[RunSync, RunSpec], None],
    way: Callable[[RunSync, RunSpec, str], None],
) -> None:
    ((of, state),) = [(of, state) for of, state in STATES if of.name == name]
    died_after = cut_after_every_call(tmp_path, live.storage, of, state, before, way)
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
        before(opened(place, storage), of)
        mirror = RunSync(place, storage, SWEEP)
        calls = recorded(mirror, die_after=len(died_after) + 1).calls
        try:
            mirror.open_sweep(DESCRIPTION, PARAMS, {"drive.version": "1"}, start_ms=1)
            way(mirror, of, state)
            return died_after
        except ProcessEndedError:
            died_after.append(calls[-1])
        synced(place, storage, [(of, state)])
        assert without_starts(Content(place).plain(ids=False)) == without_starts(whole), died_after


def test_a_stopped_trial_that_got_further_is_whole_whenever_its_projection_was_cut_off(live: LiveSweep, tmp_path: Path) -> None:
    one, storage = item("w02-r0"), LocalStorage(str(tmp_path / "storage"))
    file = f"trials/{one.key}/metrics.jsonl"
    storage.write(file, live.storage.read(file) or b"")

    def stopped_earlier(mirror: RunSync, of: RunSpec) -> None:
        now = mirror.storage.read(file) or b""
        lines = now.splitlines(keepends=True)
        mirror.storage.write(file, b"".join(lines[: len(lines) // 2]))
        mirror.stop(of)
        mirror.storage.write(file, now)

    died_after = cut_after_every_call(tmp_path, storage, one, "stopped", stopped_earlier, from_its_record)
    assert {"log_batch", "set_terminated"} <= set(died_after)


def test_a_run_that_was_cut_off_and_left_out_is_whole_when_it_returns(live: LiveSweep, tmp_path: Path) -> None:
    target, states = new_target(tmp_path), [(item("w00-stopped"), "stopped")]
    mirror = opened(target, live.storage)
    recorded(mirror, die_after=1)
    with pytest.raises(ProcessEndedError, match="create_run"):
        at_once(mirror, *states[0])
    synced(target, live.storage, [])
    assert Content(target).named("w00-stopped")["status"] == "KILLED"
    synced(target, live.storage, states)
    run = Content(target).named("w00-stopped")
    assert run["points"] == published(live.storage, item("w00-stopped"))
    assert run["end"] == max(point[3] for point in run["points"])


def copies(storage: Storage, root: Path, number: int) -> tuple[Storage, list[RunSpec]]:
    """A storage with so many trials that left the same record."""
    copied, one = LocalStorage(str(root)), item("w02-r0")
    items = []
    for index in range(number):
        key = f"{index:016x}"
        shutil.copytree(Path(storage.root, f"trials/{one.key}"), copied.path(f"trials/{key}"))
        write_result(copied, key, record(storage, one, "result.json"))
        items.append(RunSpec(key=key, name=f"w02-r{index}", role="trial", params=one.params, tags=one.tags))
    return copied, items


@pytest.mark.parametrize("log_models", [True, False])
def test_a_trial_that_began_and_ended_between_two_sendings_takes_as_few_calls_in_a_large_sweep_as_in_a_small_one(
    live: LiveSweep, tmp_path: Path, log_models: bool
) -> None:
    of_one = ["create_run", "log_inputs", "log_text", "log_batch", "set_terminated"]
    if log_models:
        upload = ["create_logged_model", "log_model_artifacts", "log_model_artifact", "finalize_logged_model", "log_outputs"]
        of_one[3:3] = upload
    for number in (3, 12):
        root = tmp_path / str(number)
        target = new_target(root)
        storage, items = copies(live.storage, root / "storage", number)
        mirror = opened(target, storage, log_models=log_models)
        calls = recorded(mirror).calls
        thread = TrackingThread(lambda mirror=mirror: mirror, interval_s=0.05)  # type: ignore[misc]
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
            published(live.storage, item("w02-r0"))
        ] * number
        assert len(content.models) == number * log_models


def test_models_may_be_left_out_and_logged_later(live: LiveSweep, tmp_path: Path) -> None:
    target, other = new_target(tmp_path), new_target(tmp_path / "other")
    synced(target, live.storage, log_models=False)
    content = Content(target)
    assert content.models == []
    run, result = content.named("w02-r0"), record(live.storage, item("w02-r0"), "result.json")
    assert (run["status"], run["outputs"]) == ("FINISHED", [])
    assert run["tags"]["drive.model_sha256"] == result["model_sha256"]
    assert "drive.model_id" not in run["tags"]
    assert run["points"] == published(live.storage, item("w02-r0"))
    mirror = opened(target, live.storage, log_models=False, reopen=False)
    calls = recorded(mirror).calls
    mirror.reconcile(STATES)
    assert calls == ["search_runs"]

    synced(target, live.storage)
    synced(other, live.storage)
    assert Content(target).plain(ids=False) == Content(other).plain(ids=False)
    everything = Content(target).plain(ids=True)
    for log_models in (False, True):
        synced(target, live.storage, log_models=log_models)
        assert Content(target).plain(ids=True) == everything, "what is there stays, and is not logged twice"


def test_the_sweep_file_says_whether_models_are_logged(live: LiveSweep, tmp_path: Path) -> None:
    storage = LocalStorage(str(tmp_path / "storage"))
    shutil.copytree(live.storage.root, storage.root)
    target = new_target(Path(storage.root), "drive-sweep")
    file = tmp_path / "sweep.yaml"
    file.write_text(
        "name: tiny\ndataset: {name: digits, limit: 50, validation: 0.2}\nmodel: convnet\nprecision: fp32\n"
        "warmup_epochs: 2\nprune_iterations: 2\nsparsity: 0.9\nbaseline: none\n"
        "training: {epochs: 2, batch_size: 20, lr: 0.05}\n"
    )
    for models, number in (("none", 0), ("all", 1)):
        plan = make_plan(load_spec(str(file), [f"tracking.models={models}"]), storage, digest=DIGITS_DIGEST)
        assert [trial.key for trial in plan.trials] == [item("w02-r0").key]
        assert sync_sweep(SweepFolder(storage, SWEEP), plan)["runs"] == 1
        content = Content(target)
        assert len(content.models) == number
        assert {run.info.status for run in content.runs if run.data.tags["drive.role"] == "trial"} == {"FINISHED"}


def test_an_interrupted_trial_goes_on_in_its_run(live: LiveSweep, tmp_path: Path) -> None:
    target, one = new_target(tmp_path), item("w02-r0")
    mirror = opened(target, live.storage)
    points = points_from_lines(live.storage.read(f"trials/{one.key}/metrics.jsonl") or b"")
    first = mirror.start(one)
    mirror.add_points(one, points[:5])
    mirror.fail(one, "lost its process")
    assert Content(target).named(one.name)["tags"]["drive.failure"] == "lost its process"
    mirror = opened(target, live.storage)
    assert mirror.start(one) == first
    running = Content(target).named(one.name)
    assert running["status"] == "RUNNING"
    assert "drive.failure" not in running["tags"]
    mirror.add_points(one, points)
    mirror.add_points(one, points)
    assert mirror.finish(one) == first
    assert Content(target).named(one.name)["points"] == published(live.storage, one)
    synced(target, live.storage)
    other = new_target(tmp_path / "other")
    synced(other, live.storage)
    assert without_starts(Content(target).plain(ids=False)) == without_starts(Content(other).plain(ids=False))


def test_a_trial_computed_anew_gets_a_new_run(live: LiveSweep, tmp_path: Path) -> None:
    target, one = new_target(tmp_path), item("w00-s0.9-r1")
    storage = LocalStorage(str(tmp_path / "storage"))
    shutil.copytree(Path(live.storage.root, f"trials/{one.key}"), Path(storage.root, f"trials/{one.key}"))
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


def points_of(storage: Storage, of: RunSpec) -> list[Point]:
    return points_from_lines(storage.read(f"trials/{of.key}/metrics.jsonl") or b"")


def test_a_trunk_that_repeats_an_epoch_keeps_its_first_points(live: LiveSweep, tmp_path: Path) -> None:
    target = new_target(tmp_path)
    mirror = opened(target, live.storage)
    mirror.start(TRUNK)
    mirror.add_points(TRUNK, [Point("val/accuracy", 2, 0.5, 1000)])
    mirror = opened(target, live.storage)
    mirror.start(TRUNK)
    mirror.finish(TRUNK)
    points = [point for point in Content(target).named(TRUNK.name)["points"] if point[:2] == ("val/accuracy", 2)]
    assert points == [("val/accuracy", 2, 0.5, 1000)]


def test_children_that_left_the_sweep_are_superseded_until_they_return(live: LiveSweep, tmp_path: Path) -> None:
    target = new_target(tmp_path)
    synced(target, live.storage)
    before = Content(target).plain(ids=True)
    synced(target, live.storage, STATES[:2])
    content = Content(target)
    assert {run.info.run_name for run in content.runs if run.data.tags.get("drive.superseded") == "true"} == {
        "w02-i001-r0",
        "w00-s0.9-r1",
        "w00-diverges",
        "w00-stopped",
    }
    assert content.named("w00-diverges")["status"] == "FAILED"
    synced(target, live.storage)
    assert Content(target).plain(ids=True) == before


def test_nothing_stays_running_that_does_not_run(live: LiveSweep, tmp_path: Path) -> None:
    target = new_target(tmp_path)
    mirror = opened(target, live.storage)
    for name in ("w00-stopped", "w00-s0.9-r1", "w00-diverges"):
        mirror.start(item(name))
    opened(target, live.storage).reconcile([(item("w00-stopped"), "waiting"), (item("w00-s0.9-r1"), "running")])
    content = Content(target)
    assert content.named("w00-stopped")["status"] == "KILLED"
    assert content.named("w00-stopped")["points"] == published(live.storage, item("w00-stopped"))
    assert content.named("w00-s0.9-r1")["status"] == "RUNNING"
    assert content.named("w00-diverges")["status"] == "KILLED", "it is no item any more"


def test_a_result_that_another_sweep_reuses_has_its_own_run_and_one_model(live: LiveSweep, tmp_path: Path) -> None:
    target = new_target(tmp_path)
    synced(target, live.storage)
    for _ in range(2):
        synced(target, live.storage, [(item("w02-r0"), "finished")], sweep="second")
        content = Content(target)
        assert len(content.models) == 3
        plain = content.plain(ids=False)["runs"]
        first, second = [run for run in plain if run["name"] == "w02-r0"]
        assert (first["tags"]["drive.sweep"], second["tags"]["drive.sweep"]) == ("second", SWEEP)
        assert first["tags"]["drive.reused_from"] == SWEEP
        assert first["tags"]["mlflow.parentRunId"] == "second"
        assert first["outputs"] == second["outputs"] == [("sparse-w02-r0", 4)]
        assert first["points"] == second["points"]
        assert "drive.reused_from" not in second["tags"]
    mirror = RunSync(target, live.storage, "second")
    calls = recorded(mirror).calls
    mirror.open_sweep(DESCRIPTION, PARAMS, {"drive.version": "1"}, reopen=False)
    mirror.reconcile([(item("w02-r0"), "finished")])
    assert set(calls) == {"search_runs", "search_logged_models"}


def test_a_model_that_another_sweep_uploads_meanwhile_is_linked(live: LiveSweep, tmp_path: Path) -> None:
    target = new_target(tmp_path)
    second = opened(target, live.storage, sweep="second")
    second.reconcile([(item("w02-r0"), "waiting"), (item("w02-i001-r0"), "finished")])
    assert [model.name for model in Content(target).models] == ["sparse-w02-i001-r0"]
    synced(target, live.storage)
    second.finish(item("w02-r0"), begun_ms=5)
    content = Content(target)
    assert len(content.models) == 3
    reused = [run["tags"].get("drive.reused_from") for run in content.plain(ids=False)["runs"] if run["name"] == "w02-r0"]
    assert reused == [SWEEP, None]


def test_a_model_that_was_deleted_is_uploaded_again(live: LiveSweep, tmp_path: Path) -> None:
    target = new_target(tmp_path)
    synced(target, live.storage)
    content = Content(target)
    content.client.delete_logged_model(content.models[0].model_id)
    synced(target, live.storage)
    assert len(Content(target).models) == 3


def test_an_edited_sweep_renames_runs_and_adds_params(live: LiveSweep, tmp_path: Path) -> None:
    target, one = new_target(tmp_path), item("w00-s0.9-r1")
    synced(target, live.storage, [(one, "finished")])
    wider = RunSpec(key=one.key, name="w00-i003-s0.9-r1", role="trial", params=one.params | {"sparsity": "0.9"}, tags=one.tags)
    synced(target, live.storage, [(wider, "finished")])
    content = Content(target)
    assert len(content.runs) == 2
    assert content.named("w00-i003-s0.9-r1")["params"] == wider.params


def test_artifacts_are_uploaded_when_they_changed(live: LiveSweep, tmp_path: Path) -> None:
    target = new_target(tmp_path)
    mirror = opened(target, live.storage)
    named_by_an_axis = {"heatmap-s0.9-training.epochs=2.png": b"png"}
    mirror.close_sweep("FINISHED", ARTIFACTS | named_by_an_axis)
    calls = recorded(mirror).calls
    mirror.close_sweep("FINISHED", ARTIFACTS | named_by_an_axis | {"report.html": b"<p>more</p>"})
    assert calls.count("log_artifact") == 1
    (run,) = Content(target).runs
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    assert (folder / "report.html").read_bytes() == b"<p>more</p>"
    assert (folder / "figures/heat.png").read_bytes() == ARTIFACTS["figures/heat.png"]
    assert (folder / "heatmap-s0.9-training.epochs=2.png").read_bytes() == b"png"


def test_a_missing_model_file_is_told_after_all_others_were_projected(live: LiveSweep, tmp_path: Path) -> None:
    storage = LocalStorage(str(tmp_path / "storage"))
    shutil.copytree(live.storage.root, storage.root)
    storage.remove(f"trials/{item('w02-r0').key}/model.safetensors.zst")
    target = new_target(tmp_path)
    with pytest.raises(SetupError, match=r"1 runs are not up to date.*w02-r0.*model file is gone.*--recompute"):
        synced(target, storage)
    statuses = {run.info.run_name: run.info.status for run in Content(target).runs}
    assert statuses["w00-s0.9-r1"] == "FINISHED"
    assert statuses["w02-r0"] == "RUNNING", "a model that did not arrive is not reported as logged"
    run = Content(target).named("w02-r0")
    assert run["points"] == published(storage, item("w02-r0")), "they do not wait for it"
    assert run["params"] == item("w02-r0").params


@pytest.mark.parametrize("name", ["metrics.jsonl", "model.safetensors.zst"])
def test_a_file_that_a_late_attempt_wrote_over_a_finished_trial_is_told(live: LiveSweep, tmp_path: Path, name: str) -> None:
    storage, one = LocalStorage(str(tmp_path / "storage")), item("w02-r0")
    shutil.copytree(live.storage.root, storage.root)
    file = storage.path(f"trials/{one.key}/{name}")
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-1]))
    target = new_target(tmp_path)
    said = rf"w02-r0.*{name} (has|does not match) .*; .*drive-sweep resume {SWEEP}"
    with pytest.raises(SetupError, match=said):
        synced(target, storage, [(one, "finished")])
    assert "FINISHED" not in [run.info.status for run in Content(target).runs if run.info.run_name == "w02-r0"]


def test_a_server_that_goes_away_loses_nothing(live: LiveSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where the server puts the artifacts that it is sent
    database = TrackingTarget(uri=new_target(tmp_path).uri, experiment="pruning", artifact_root=None)
    one, two = item("w02-r0"), item("w00-s0.9-r1")
    points = points_of(live.storage, one)
    with serve(database, port=0) as base:
        target = TrackingTarget(uri=base, experiment="pruning", artifact_root=None)
        thread = TrackingThread(lambda: opened(target, live.storage), interval_s=0.05)
        thread.start()
        thread.start_item(one)
        thread.points(one, points[:3])
        assert thread.flush(60), thread.last_error
        with pytest.raises(SetupError, match=r"port \d+ is taken.*--port"), serve(database, port=port_of(base)):
            pass
    calls: list[Callable[[], None]] = [
        lambda: thread.points(one, points[3:]),
        lambda: thread.finish(one),
        lambda: thread.start_item(two),
        lambda: thread.finish(two),
        lambda: thread.close_sweep("FINISHED", ARTIFACTS),
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
        assert content.named(one.name)["points"] == published(live.storage, one)
        assert content.named(two.name)["status"] == "FINISHED"
        assert content.named(SWEEP)["status"] == "FINISHED"
        assert sorted(model.name for model in content.models) == ["sparse-w00-s0_9-r1", "sparse-w02-r0"]
        for model in content.models:
            (file,) = tmp_path.glob(f"mlartifacts/**/{model.model_id}/artifacts/artifacts/model.safetensors.zst")
            of = one if model.name == "sparse-w02-r0" else two
            assert file.read_bytes() == live.storage.read(f"trials/{of.key}/model.safetensors.zst")


def port_of(base: str) -> int:
    return int(base.rpartition(":")[2])


def duration_s(call: Callable[[], object], pause_s: float = 0.0) -> float:
    begun = time.monotonic()
    call()
    took = time.monotonic() - begun
    time.sleep(pause_s)
    return took


def test_without_a_server_the_thread_tells_and_never_raises(live: LiveSweep) -> None:
    target = TrackingTarget(uri="http://127.0.0.1:9", experiment="pruning", artifact_root=None)
    thread = TrackingThread(lambda: opened(target, live.storage), interval_s=0.05)
    thread.start()
    thread.start_item(TRUNK)
    thread.points(TRUNK, [Point("val/accuracy", 1, 0.5, 1000)])
    thread.fail(TRUNK, "diverged")
    thread.reconcile(STATES)
    begun = time.monotonic()
    assert not thread.flush(60)
    assert time.monotonic() - begun < 30
    assert thread.pending == 4
    assert thread.last_error is not None
    assert "drive-sweep sync" in thread.last_error
    thread.close()
    assert thread.pending == 4


def test_one_item_that_cannot_be_sent_does_not_hold_up_the_others(live: LiveSweep, tmp_path: Path) -> None:
    target = new_target(tmp_path)
    thread = TrackingThread(lambda: opened(target, live.storage), interval_s=0.05)
    thread.start()
    missing = RunSpec(key="0" * 16, name="no-record", role="trial", params={}, tags={})
    thread.finish(missing)
    thread.finish(item("w00-s0.9-r1"))
    thread.close_sweep("FAILED", {})
    assert not thread.flush(60)
    thread.close()
    assert thread.pending == 1
    assert "no result.json" in (thread.last_error or "")
    content = Content(target)
    assert content.named("w00-s0.9-r1")["status"] == "FINISHED"
    assert content.named(SWEEP)["status"] == "FAILED"


def test_a_late_reconcile_ends_no_run_that_began_since(
    live: LiveSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, tries, reconcile = new_target(tmp_path), 0, RunSync.reconcile

    def second_time(mirror: RunSync, items: list[tuple[RunSpec, str]]) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise SetupError("away for a moment")
        reconcile(mirror, items)

    monkeypatch.setattr(RunSync, "reconcile", second_time)
    opened(target, live.storage).start(item("w00-s0.9-r1"))
    thread = TrackingThread(lambda: opened(target, live.storage), interval_s=0.05)
    thread.reconcile([(item("w00-s0.9-r1"), "waiting")])
    thread.start_item(item("w00-s0.9-r1"))
    thread.start()
    assert thread.flush(60), thread.last_error
    thread.close()
    assert tries == 2
    assert Content(target).named("w00-s0.9-r1")["status"] == "RUNNING"


def test_what_was_deleted_in_mlflow_comes_back(live: LiveSweep, tmp_path: Path) -> None:
    target = new_target(tmp_path)
    synced(target, live.storage)
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
    synced(target, live.storage)
    assert without_starts(Content(target).plain(ids=False)) == without_starts(Content(live.target).plain(ids=False))
    assert not set(deleted) & {run.info.run_id for run in Content(target).runs}

    client.delete_logged_model(next(model.model_id for model in Content(target).models))
    assert len(Content(target).models) == 2
    synced(target, live.storage)
    content = Content(target)
    shown = {run.data.tags["drive.model_id"] for run in content.runs if "drive.model_id" in run.data.tags}
    assert shown == {model.model_id for model in content.models if str(model.status) == "READY"}
    assert len(shown) == 3


def test_a_model_whose_files_are_gone_is_uploaded_again(live: LiveSweep, tmp_path: Path) -> None:
    target = new_target(tmp_path)
    synced(target, live.storage)
    gone = next(model for model in Content(target).models if model.tags["drive.trial_key"] == item("w02-r0").key)
    shutil.rmtree(Path(gone.artifact_location))
    synced(target, live.storage)
    models = Content(target).models
    assert len(models) == 3
    assert all(Path(model.artifact_location, "MLmodel").is_file() for model in models)


def test_a_database_that_is_replaced_while_a_sweep_runs_gets_all_of_it(live: LiveSweep, tmp_path: Path) -> None:
    target = new_target(tmp_path)
    thread = TrackingThread(lambda: opened(target, live.storage), interval_s=0.05)
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
    found = {run.info.run_name: run.info.run_id for run in content.runs if run.info.status == "FINISHED"}
    for name in ("w02-r0", "w00-s0.9-r1", "w02-i001-r0"):
        assert found[name] == thread.run_ids[item(name).key] != former.get(item(name).key)


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "nonsense://x"])
def test_an_unusable_uri_is_a_setup_error(uri: str) -> None:
    with pytest.raises(SetupError, match=rf"tracking {uri} cannot be used: .*--tracking-uri"):
        connect(TrackingTarget(uri=uri, experiment="pruning", artifact_root=None))


def test_tracking_is_silent_and_ignores_what_others_left(
    live: LiveSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert empty_database()[1] == "", "making the database"
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        synced(new_target(tmp_path), live.storage)
    assert capfd.readouterr() == ("", "")


def test_importing_the_modules_is_cheap() -> None:
    modules = "orchestrator.tracking.background_sync, orchestrator.tracking.ui_server"
    script = f"import sys, {modules}; print({{'mlflow', 'torch', 'ray'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_the_ui_of_a_server_is_its_own_address() -> None:
    with serve(TrackingTarget(uri="http://mlflow:5000", experiment="e", artifact_root=None)) as base:
        assert base == "http://mlflow:5000"


def test_links_hold_quoted_ids_and_open_in_the_view_for_training() -> None:
    assert compare_url("http://h:5000/", "7", ["a", "b"]) == (
        "http://h:5000/#/compare-runs?runs=%5B%22a%22%2C%22b%22%5D&experiments=%5B%227%22%5D&workflowType=machine_learning"
    )
    assert run_url("http://h:5000/", "7", "a") == "http://h:5000/#/experiments/7/runs/a?workflowType=machine_learning"
