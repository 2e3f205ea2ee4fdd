"""A small sweep that is synced to MLflow, and what tests compare of it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.storage.base import Storage
from orchestrator.storage.layout import StageFolders, TrialFolder
from orchestrator.storage.local import LocalStorage
from orchestrator.tracking.background_sync import TrackingThread
from orchestrator.tracking.client import TrackingTarget
from orchestrator.tracking.records import RunSpec
from orchestrator.tracking.run_sync import RunSync
from orchestrator.tracking.sweep_summary import SweepSummary
from tests.support.trials import tiny_config, tiny_settings, tiny_training, write_result
from trainables.config.keys import canonical, trial_key, warmup_key
from trainables.data.digits import DIGITS_DIGEST
from trainables.records.metrics import Point, points_from_json, points_from_lines
from trainables.worker.stage import Stage
from trainables.worker.trainable import execute_stage

SWEEP = "tiny"
DESCRIPTION = "a sweep of **tests**"
PARAMS = {"training.epochs": "2"}
ARTIFACTS = {"report.html": b"<p>done</p>", "figures/heat.png": b"not really"}
SUMMARY = SweepSummary(artifacts=ARTIFACTS)
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


WARMUP = RunSpec(
    key=warmup_key(TRIALS["w02-r0"], DIGITS_DIGEST), name="warmup-r0", role="warmup", params={"seed": "0"}, tags={}
)
STATES = [(WARMUP, "finished")] + [
    (item(name), {"w00-diverges": "failed", "w00-stopped": "stopped"}.get(name, "finished")) for name in TRIALS
]


@dataclass(frozen=True)
class TrackedSweep:
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
    """One stage in this process, its updates sent as the driver sends them."""
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


def open_sync(
    target: TrackingTarget, storage: Storage, sweep: str = SWEEP, *, log_models: bool = True, reopen: bool = True
) -> RunSync:
    sync = RunSync(target, storage, sweep, log_models=log_models)
    sync.open_sweep(DESCRIPTION, PARAMS, {"drive.version": "1"}, start_ms=1, reopen=reopen)
    return sync


def synced(
    target: TrackingTarget,
    storage: Storage,
    states: list[tuple[RunSpec, str]] = STATES,
    sweep: str = SWEEP,
    *,
    log_models: bool = True,
) -> RunSync:
    """What `sync` does."""
    sync = open_sync(target, storage, sweep, log_models=log_models, reopen=False)
    sync.reconcile(states)
    sync.close_sweep("FINISHED", SUMMARY)
    return sync


def record(storage: Storage, of: RunSpec, name: str) -> Any:
    return storage.read_json(f"trials/{of.key}/{name}")


def published(storage: Storage, of: RunSpec) -> list[tuple[str, int, float, int]]:
    points = points_from_lines(storage.read(f"trials/{of.key}/metrics.jsonl") or b"")
    return sorted((point.key, point.step, point.value, point.time_ms) for point in points)


def without_starts(content: dict[str, Any]) -> dict[str, Any]:
    return content | {"runs": [run | {"start": None} for run in content["runs"]]}


def points_of(storage: Storage, of: RunSpec) -> list[Point]:
    return points_from_lines(storage.read(f"trials/{of.key}/metrics.jsonl") or b"")


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
