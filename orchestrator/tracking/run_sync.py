"""Trial folders -> MLflow, idempotent: projecting twice is projecting once.

One sweep is one parent run, one trial or trunk one child run of it for ever, found by the tags drive.sweep, drive.role and
drive.trial_key. Times are those of the records, so a sweep that ran without a tracking server looks the same afterwards.
A sweep has one RunSync at a time, since MLflow cannot find-or-create in one step.

An ended run is whole if it has the status, the recorded end, and the tag drive.projection: a digest of what it is made from.
The tag is written with or before the points, but the end of the run is the last call, and a run whose end is to come has
another status or time. So a projection that is cut off after any call is taken up again by the next one.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import SetupError
from orchestrator.storage.base import Storage
from orchestrator.tracking.client import TrackingTarget, as_setup_error, connect, database_file, say_on_stderr
from orchestrator.tracking.database import Remark, database_id, file_identity
from orchestrator.tracking.logged_models import LoggedModelInfo, SweepModels
from orchestrator.tracking.records import RunRecord, RunSpec, read_record
from orchestrator.tracking.run_outputs import attach_model, log_dataset, log_layers, points_on_model, refuse_foreign_file
from orchestrator.tracking.runs import FAILURE_TAGS, SWEEP, Run, SweepRuns
from trainables.records.metrics import Point
from trainables.wording import shortened

PROJECTION = 2  # raised when ended runs should look different, so that the next sync brings them up to date
NOT_IN_TAGS = re.compile(r"[^\w\-. :/]", re.ASCII)  # MLflow refuses them in a tag's name, not in a file's


@dataclass(frozen=True, kw_only=True)
class SweepRunSpec:
    """What it takes to open the projection of a sweep, anywhere: plain values.

    Attributes:
        trial_keys: trials whose models may be there already.
        description, params, tags: of the sweep's own run.
    """

    target: TrackingTarget
    storage: Storage
    sweep: str
    log_models: bool
    trial_keys: tuple[str, ...]
    description: str
    params: dict[str, str]
    tags: dict[str, str]

    def opened(self, start_ms: int | None = None, reopen: bool = True, remark: Remark = say_on_stderr) -> RunSync:
        """The projection with the sweep's run there; see `RunSync.open_sweep`."""
        mirror = RunSync(
            self.target, self.storage, self.sweep, log_models=self.log_models, trial_keys=self.trial_keys, remark=remark
        )
        mirror.open_sweep(self.description, self.params, self.tags, start_ms=start_ms, reopen=reopen)
        return mirror


class RunSync:
    """The projection of one sweep. Every method may be called again after any failure.

    Attributes:
        parent_run_id: run of the sweep, once it is open.
        database: number of the SQLite database (`database_id`); 0 for other stores.
    """

    def __init__(
        self,
        target: TrackingTarget,
        storage: Storage,
        sweep: str,
        *,
        log_models: bool = True,
        trial_keys: Iterable[str] = (),
        remark: Remark = say_on_stderr,
    ) -> None:
        """`trial_keys` are trials whose models may be there already; they are looked up together when one is needed."""
        self.uri = target.uri
        self.client, self.experiment_id = connect(target, remark)
        self._file = database_file(target.uri)
        self._identity = self._file and file_identity(self._file)
        self.database = (self._file and database_id(self._file)) or 0
        self.storage = storage
        self.sweep = sweep
        self.log_models = log_models
        self.runs = SweepRuns(self.client, self.experiment_id, sweep)
        self.models = SweepModels(self.client, self.experiment_id)
        self.models.forget(trial_keys)
        self.parent_run_id = ""

    def is_replaced(self) -> bool:
        """Whether another database is in the place of the one that was opened, which does not hold what was sent so far."""
        return self._file is not None and file_identity(self._file) != self._identity

    def run_ids(self) -> dict[str, str]:
        """Trial key or warm-up key -> run id, of all runs."""
        return {key: run.run_id for (_, key), run in self.runs.by_key.items() if key}

    def refresh(self, item: RunSpec | None = None) -> None:
        """Forgets what is known of the runs, or of the item's run and models, and looks again."""
        if item is None:
            self.runs.load()
        else:
            self.runs.load_one((item.role, item.key))
            self.models.forget([item.key])

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
        with as_setup_error(self.uri):
            self.refresh()
            own = {"drive.sweep": self.sweep, "drive.role": "sweep", "mlflow.note.content": description}
            run = self.runs.ensure(SWEEP, self.sweep, tags | own, start_ms)
            self.runs.log(run, params=params, tags=tags | own)
            self.parent_run_id = run.run_id
            if reopen:
                self.runs.reopen(run)
            return run.run_id

    def start(self, item: RunSpec, start_ms: int | None = None, points: Sequence[Point] = ()) -> str:
        """The id of the item's run, RUNNING; `start_ms` counts for a new run only."""
        run = self._claim(item, read_record(self.storage, item.role, item.key), start_ms)
        self.runs.reopen(run)
        self._log(item, run, points)
        return run.run_id

    def add_points(self, item: RunSpec, points: Sequence[Point]) -> None:
        """Adds points to the item's run; those that it holds already change nothing."""
        run = self.runs.by_key.get((item.role, item.key))
        if run is None:
            run = self._claim(item, read_record(self.storage, item.role, item.key))
        self._log(item, run, points)

    def finish(self, item: RunSpec, begun_ms: int | None = None, points: Sequence[Point] = ()) -> str:
        """The id of the item's run, FINISHED, with all that the record holds.

        Like `fail` and `stop`, with `begun_ms` and `points` this does the work of `start` and `add_points` too.

        Raises:
            SetupError: there is no result, its model file is gone, or a file there is not the result's own.
        """
        record = read_record(self.storage, item.role, item.key)
        if item.role == "trial" and not record.result and not record.damage:
            raise SetupError(f"trial {item.key} ({item.name}) has no result.json in storage {self.storage.root}")
        refuse_foreign_file(item, record, self.sweep)
        return self._end(item, record, "FINISHED", begun_ms=begun_ms, points=points)

    def fail(self, item: RunSpec, message: str, begun_ms: int | None = None, points: Sequence[Point] = ()) -> str:
        """The id of the item's run, FAILED; a recorded error goes before `message`."""
        record = read_record(self.storage, item.role, item.key)
        return self._end(item, record, "FAILED", message, begun_ms=begun_ms, points=points)

    def stop(self, item: RunSpec, begun_ms: int | None = None, points: Sequence[Point] = ()) -> str:
        """The id of the item's run, KILLED: interrupted, and resumable."""
        record = read_record(self.storage, item.role, item.key)
        return self._end(item, record, "KILLED", begun_ms=begun_ms, points=points)

    def close_sweep(self, status: str, artifacts: dict[str, bytes]) -> None:
        """Ends the sweep's run with its last child; uploads the artifacts (path -> content) that are new or changed."""
        with as_setup_error(self.uri):
            run = self.runs.by_key[SWEEP]
            for path, content in artifacts.items():
                digest = hashlib.sha256(content).hexdigest()
                tag = f"drive.artifact.{NOT_IN_TAGS.sub('_', path)}"
                if run.tags.get(tag) != digest:
                    self._upload_artifact(run, Path(path), content)
                    self.runs.log(run, tags={tag: digest})
            ends = [child.end_ms for key, child in self.runs.by_key.items() if key != SWEEP and child.end_ms]
            self.runs.end(run, status, max([*ends, run.start_ms]) if ends else None)

    def _upload_artifact(self, run: Run, path: Path, content: bytes) -> None:
        with tempfile.TemporaryDirectory(prefix="drive-sweep-artifact-") as scratch:
            file = Path(scratch, path.name)
            file.write_bytes(content)
            folder = None if path.parent == Path() else path.parent.as_posix()
            self.client.log_artifact(run.run_id, str(file), folder)

    def reconcile(self, items: Sequence[tuple[RunSpec, str]]) -> None:
        """Makes MLflow agree with the records. Items are all of the sweep, trials and trunks, each with its state.

        A child that is no item any more is tagged drive.superseded; nothing stays RUNNING except items that are "running".

        Raises:
            SetupError: the store cannot be used; or some items could not be projected, after all others were.
        """
        problems = []
        with as_setup_error(self.uri):
            self.refresh()
            self.models.forget(item.key for item, _ in items if item.role == "trial")
            for item, state in items:
                try:
                    self._reconcile_one(item, state)
                except SetupError as error:
                    problems.append(str(error))
            wanted = {(item.role, item.key) for item, _ in items} | {SWEEP}
            for key, run in self.runs.by_key.items():
                if key not in wanted:
                    self.runs.log(run, tags={"drive.superseded": "true"})
                    if run.status == "RUNNING":
                        self.runs.end(run, "KILLED", None)
        if problems:
            raise SetupError(f"{len(problems)} runs are not up to date in MLflow: " + "; ".join(problems[:3]))

    def _reconcile_one(self, item: RunSpec, state: str) -> None:
        run = self.runs.by_key.get((item.role, item.key))
        if state == "finished":
            self.finish(item)
        elif state == "failed":
            self.fail(item, "")
        elif state == "stopped" or (run and state == "waiting" and run.status == "RUNNING"):
            self.stop(item)
        elif run and state == "running":
            self.add_points(item, read_record(self.storage, item.role, item.key).points)

    def _claim(self, item: RunSpec, record: RunRecord, start_ms: int | None = None, tags: dict[str, str] | None = None) -> Run:
        """The item's run; a new one is made with `tags` too.

        A run that holds other points than the record is of a trial that was computed anew; it would get every step twice,
        so it is left behind with the tag drive.superseded=recomputed.
        """
        key = (item.role, item.key)
        old = self.runs.by_key.get(key)
        if old and item.role == "trial" and self.runs.contradicts(old, record.points):
            self.runs.set_aside(key)
        return self._named(item, start_ms or record.start_ms, tags or {})

    def _named(self, item: RunSpec, start_ms: int | None, tags: dict[str, str]) -> Run:
        run = self.runs.ensure((item.role, item.key), item.name, self._item_tags(item) | tags, start_ms)
        self.runs.drop_tags(run, ("drive.superseded",))
        return run

    def _item_tags(self, item: RunSpec) -> dict[str, str]:
        own = {
            "mlflow.parentRunId": self.parent_run_id,
            "drive.sweep": self.sweep,
            "drive.role": item.role,
            "drive.trial_key": item.key,
        }
        return item.tags | own

    def _log(
        self,
        item: RunSpec,
        run: Run,
        points: Sequence[Point] = (),
        tags: dict[str, str] | None = None,
        on_model: dict[Point, dict[str, str]] | None = None,
    ) -> None:
        """Sends points, the item's params and tags, and more tags."""
        self.runs.log(run, points, item.params, self._item_tags(item) | (tags or {}), on_model)

    def _end(
        self,
        item: RunSpec,
        record: RunRecord,
        status: str,
        message: str = "",
        *,
        begun_ms: int | None,
        points: Sequence[Point],
    ) -> str:
        """The run in its final state: data set, model, points and tags, and last its end, which says that all was done."""
        digest = _digest(item, record, status)
        known = self.runs.by_key.get((item.role, item.key))
        if known and begun_ms is None and self._is_projected(known, record, status, digest):
            self._log(item, self._named(item, None, {}), points)
            return known.run_id
        tags = _result_tags(record) if record.result else {}
        tags |= _failure_tags(record, message) if status == "FAILED" else {}
        tags |= {"drive.projection": digest}
        run = self._claim(item, record, begun_ms, tags)
        if begun_ms is not None:
            self.runs.reopen(run)
        elif status != "FAILED":
            self.runs.drop_tags(run, FAILURE_TAGS)
        everything = [*points, *record.points]
        on_model: dict[Point, dict[str, str]] = {}
        if record.result:
            log_dataset(self.runs, run, record)
            log_layers(self.runs, run, record)
        if record.result and self.log_models:
            try:
                model = attach_model(self.runs, self.models, run, item, record)
            except Exception:
                self._log(item, run, everything)  # the points do not wait for a model that cannot be uploaded
                raise
            tags |= self._model_tags(model)
            on_model = points_on_model(run, model, record)
        self._log(item, run, everything, tags, on_model)
        last_ms = max((point.time_ms for point in run.sent), default=None)
        self.runs.end(run, status, record.end_ms or last_ms)
        return run.run_id

    def _model_tags(self, model: LoggedModelInfo) -> dict[str, str]:
        made_by = model.sweep or self.sweep
        return {"drive.model_id": model.model_id} | ({"drive.reused_from": made_by} if made_by != self.sweep else {})

    def _is_projected(self, run: Run, record: RunRecord, status: str, digest: str) -> bool:
        if run.tags.get("drive.projection") != digest or run.status != status or record.end_ms not in (None, run.end_ms):
            return False
        if not record.result:
            return run.metrics.keys() >= {point.key for point in record.points}
        model_id = run.tags.get("drive.model_id", "")
        has_model = model_id in run.model_ids and self.models.is_ready(record.key, model_id)
        return run.metrics == record.result["metrics"] and (has_model or not self.log_models)


def _digest(item: RunSpec, record: RunRecord, status: str) -> str:
    """16 hex digits of what an ended run is made from; model, name, params and tags of the item are compared as they are."""
    content = json.dumps([PROJECTION, status, item.role, item.key, record.digest])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _result_tags(record: RunRecord) -> dict[str, str]:
    result = record.result
    tags = {"drive.attempt": str(result["attempt"]), "drive.model_sha256": result["model_sha256"]}
    told = {f"drive.{name}": str(result[name]) for name in ("revision", "mask_sha256", "device") if result.get(name)}
    return tags | told


def _failure_tags(record: RunRecord, message: str) -> dict[str, str]:
    """Tags of a failed run; without a record and a message those that it has stay."""
    told = shortened(str(record.error.get("message") or message), 4000)
    kind = str(record.error.get("kind", ""))
    return {tag: value for tag, value in zip(FAILURE_TAGS, (told, kind), strict=True) if value}
