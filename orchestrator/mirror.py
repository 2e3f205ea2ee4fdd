"""Trial folders -> MLflow, idempotent: projecting twice is projecting once.

One sweep is one parent run, one trial or trunk one child run of it for ever, found by the tags drive.sweep, drive.role and
drive.trial_key. Times are those of the records, so a sweep that ran without a tracking server looks the same afterwards.
A sweep has one Mirror at a time, since MLflow cannot find-or-create in one step. Read by: tracking.py, cli.py.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.errors import SetupError
from orchestrator.mlflow_client import TrackingTarget, connect, tracking_problems
from orchestrator.run_records import Item, RunRecord, read_record
from orchestrator.run_results import attach_results
from orchestrator.store import Storage
from orchestrator.sweep_runs import FAILURE_TAGS, SWEEP, Run, SweepRuns
from trainables.metrics import Point

PROJECTION = 1  # raised when ended runs should look different, so that the next sync brings them up to date


class Mirror:
    """The projection of one sweep. Every method may be called again after any failure.

    Attributes:
        parent_run_id: run of the sweep, once it is open.
        model_ids: trial key -> logged model, of the trials that this mirror saw finished.
    """

    def __init__(self, target: TrackingTarget, storage: Storage, sweep: str) -> None:
        self.uri = target.uri
        self.client, self.experiment_id = connect(target)
        self.storage = storage
        self.sweep = sweep
        self.runs = SweepRuns(self.client, self.experiment_id, sweep)
        self.parent_run_id = ""
        self.model_ids: dict[str, str] = {}
        self._known_models: dict[str, set[str]] = {}

    @property
    def run_ids(self) -> dict[str, str]:
        """Trial key or warm-up key -> run id."""
        return {key: run.run_id for (_, key), run in self.runs.by_key.items() if key}

    def refresh(self) -> None:
        """Forgets what is known of the runs and looks again."""
        self.runs.load()

    def open_sweep(
        self,
        description: str,
        params: dict[str, str],
        tags: dict[str, str],
        *,
        start_ms: int | None = None,
        reopen: bool = True,
    ) -> str:
        """The id of the sweep's run, made if there is none.

        Args:
            params: of an edited sweep file only those are added that the run does not have; a param cannot change.
            start_ms: when the sweep began; counts for a new run only.
            reopen: set the run to RUNNING. Without it a run that has ended stays as it is, for `sync`.
        """
        with tracking_problems(self.uri):
            self.refresh()
            own = {"drive.sweep": self.sweep, "drive.role": "sweep", "mlflow.note.content": description}
            run = self.runs.ensure(SWEEP, self.sweep, params, tags | own, start_ms)
            self.parent_run_id = run.run_id
            if reopen:
                self.runs.reopen(run)
            return run.run_id

    def start(self, item: Item, start_ms: int | None = None) -> str:
        """The id of the item's run, RUNNING; `start_ms` counts for a new run only."""
        record = read_record(self.storage, item.role, item.key)
        run = self._claim(item, record, start_ms)
        self.runs.reopen(run)
        return run.run_id

    def add_points(self, item: Item, points: Sequence[Point]) -> None:
        """Adds points to the item's run; those that it holds already change nothing."""
        run = self.runs.by_key.get((item.role, item.key))
        if run is None:
            run = self._claim(item, read_record(self.storage, item.role, item.key))
        self.runs.add_points(run, points)

    def finish(self, item: Item) -> str:
        """The id of the item's run, FINISHED, with all that the record holds.

        Raises:
            SetupError: there is no result, or its model file is gone.
        """
        record = read_record(self.storage, item.role, item.key)
        if item.role == "trial" and not record.result:
            raise SetupError(f"trial {item.key} ({item.name}) has no result.json in storage {self.storage.root}")
        return self._end(item, record, "FINISHED", "")

    def fail(self, item: Item, message: str) -> str:
        """The id of the item's run, FAILED; a recorded error goes before `message`."""
        return self._end(item, read_record(self.storage, item.role, item.key), "FAILED", message)

    def stop(self, item: Item) -> str:
        """The id of the item's run, KILLED: interrupted, and resumable."""
        return self._end(item, read_record(self.storage, item.role, item.key), "KILLED", "")

    def close_sweep(self, status: str, artifacts: dict[str, bytes]) -> None:
        """Ends the sweep's run with its last child; uploads the artifacts (path -> content) that are new or changed."""
        with tracking_problems(self.uri):
            run = self.runs.by_key[SWEEP]
            for path, content in artifacts.items():
                digest = hashlib.sha256(content).hexdigest()
                if run.tags.get(f"drive.artifact.{path}") != digest:
                    self._upload_artifact(run, Path(path), content)
                    self.runs.set_tags(run, {f"drive.artifact.{path}": digest})
            ends = [child.end_ms for key, child in self.runs.by_key.items() if key != SWEEP and child.end_ms]
            self.runs.end(run, status, max([*ends, run.start_ms]) if ends else None)

    def _upload_artifact(self, run: Run, path: Path, content: bytes) -> None:
        with tempfile.TemporaryDirectory(prefix="drive-sweep-artifact-") as scratch:
            file = Path(scratch, path.name)
            file.write_bytes(content)
            folder = None if path.parent == Path() else path.parent.as_posix()
            self.client.log_artifact(run.run_id, str(file), folder)

    def reconcile(self, items: Sequence[tuple[Item, str]]) -> None:
        """Makes MLflow agree with the records. Items are all of the sweep, trials and trunks, each with its state.

        A child that is no item any more is tagged drive.superseded; nothing stays RUNNING except items that are "running".

        Raises:
            SetupError: the store cannot be used; or some items could not be projected, after all others were.
        """
        problems = []
        with tracking_problems(self.uri):
            self.refresh()
            self._known_models = {}
            for item, state in items:
                try:
                    self._reconcile_one(item, state)
                except SetupError as error:
                    problems.append(str(error))
            wanted = {(item.role, item.key) for item, _ in items} | {SWEEP}
            for key, run in self.runs.by_key.items():
                if key not in wanted:
                    self.runs.set_tags(run, {"drive.superseded": "true"})
                    if run.status == "RUNNING":
                        self.runs.end(run, "KILLED", None)
        if problems:
            raise SetupError(f"{len(problems)} runs are not up to date in MLflow: " + "; ".join(problems[:3]))

    def _reconcile_one(self, item: Item, state: str) -> None:
        run = self.runs.by_key.get((item.role, item.key))
        if state == "finished":
            self.finish(item)
        elif state == "failed":
            self.fail(item, "")
        elif state == "stopped" or (run and state == "waiting" and run.status == "RUNNING"):
            self.stop(item)
        elif run and state == "running":
            self.add_points(item, read_record(self.storage, item.role, item.key).points)

    def _claim(self, item: Item, record: RunRecord, start_ms: int | None = None) -> Run:
        """The item's run, up to date.

        A run that holds other points than the record is of a trial that was computed anew; it would get every step twice,
        so it is left behind with the tag drive.superseded=recomputed.
        """
        key = (item.role, item.key)
        old = self.runs.by_key.get(key)
        if old and item.role == "trial" and self.runs.contradicts(old, record.points):
            self.runs.set_aside(key)
        return self._described(item, start_ms or record.start_ms)

    def _described(self, item: Item, start_ms: int | None) -> Run:
        """The item's run with its name, params and tags."""
        own = {
            "mlflow.parentRunId": self.parent_run_id,
            "drive.sweep": self.sweep,
            "drive.role": item.role,
            "drive.trial_key": item.key,
        }
        run = self.runs.ensure((item.role, item.key), item.name, item.params, item.tags | own, start_ms)
        self.runs.drop_tags(run, ("drive.superseded",))
        return run

    def _end(self, item: Item, record: RunRecord, status: str, message: str) -> str:
        """The run in its final state: points, tags, model, end, and last the digest which says that all of this was done."""
        digest = _digest(item, record, status)
        known = self.runs.by_key.get((item.role, item.key))
        if known and self._is_projected(known, record, status, digest):
            return self._described(item, None).run_id
        run = self._claim(item, record)
        self.runs.add_points(run, record.points)
        if status == "FAILED":
            self.runs.set_tags(run, _failure_tags(record, message))
        else:
            self.runs.drop_tags(run, FAILURE_TAGS)
        if record.result:
            model = attach_results(self.runs, run, item, record)
            self.model_ids[item.key] = model.model_id
            self.runs.set_tags(run, self._finished_tags(record, model))
        last_ms = max((point.time_ms for point in run.sent), default=None)
        self.runs.end(run, status, record.end_ms or last_ms)
        self.runs.set_tags(run, {"drive.projection": digest})
        return run.run_id

    def _finished_tags(self, record: RunRecord, model: Any) -> dict[str, str]:
        result, made_by = record.result, model.tags.get("drive.sweep", self.sweep)
        tags = {
            "drive.attempt": str(result["attempt"]),
            "drive.model_sha256": result["model_sha256"],
            "drive.model_id": model.model_id,
        }
        tags |= {"drive.revision": str(result["revision"])} if result.get("revision") else {}
        return tags | ({"drive.reused_from": made_by} if made_by != self.sweep else {})

    def _is_projected(self, run: Run, record: RunRecord, status: str, digest: str) -> bool:
        if run.tags.get("drive.projection") != digest or run.status != status:
            return False
        if not record.result:
            return run.metrics.keys() >= {point.key for point in record.points}
        model_id = run.tags.get("drive.model_id", "")
        if run.metrics != record.result["metrics"] or model_id not in run.model_ids or not self._model_exists(model_id):
            return False
        self.model_ids[record.key] = model_id
        return True

    def _model_exists(self, model_id: str) -> bool:
        """Whether the model is one of this sweep, or of the sweeps whose results it reuses; one search each."""
        sweeps = {run.tags.get("drive.reused_from", self.sweep) for run in self.runs.by_key.values()} | {self.sweep}
        for sweep in sweeps - self._known_models.keys():
            found = self.runs.pages(self.client.search_logged_models, f"tags.`drive.sweep` = '{sweep}'")
            self._known_models[sweep] = {model.model_id for model in found if str(model.status) == "READY"}
        return any(model_id in models for models in self._known_models.values())


def _digest(item: Item, record: RunRecord, status: str) -> str:
    """16 hex digits of what an ended run is made from; name, params and tags of the item are compared as they are."""
    content = json.dumps([PROJECTION, status, item.role, item.key, record.digest])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _failure_tags(record: RunRecord, message: str) -> dict[str, str]:
    """Tags of a failed run; without a record and a message those that it has stay."""
    told = str(record.error.get("message") or message)[:4000]
    kind = str(record.error.get("kind", ""))
    return {tag: value for tag, value in zip(FAILURE_TAGS, (told, kind), strict=True) if value}
