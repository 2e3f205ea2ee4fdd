"""Syncs trial folders to MLflow runs; syncing again changes nothing.

A sweep is one parent run. Each trial and each shared warm-up is one child run of it, for good, found by the tags drive.sweep,
drive.role and drive.trial_key. Times are those of the records, so a sweep that ran without a tracking server looks the same
afterwards. A sweep has one RunSync at a time, since MLflow cannot find-or-create in one step.

An ended run is complete if it has the status, the recorded end, and the tag drive.projection: a digest of its contents. The tag
is written with or before the points, but the end of the run is the last call, and until then the run has another status or end.
So the next sync completes one that was cut off after any call.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.command_line import command
from orchestrator.errors import SetupError
from orchestrator.storage.base import Storage
from orchestrator.tracking.client import TrackingTarget, as_setup_error, connect, database_file, print_on_stderr
from orchestrator.tracking.database import Notify
from orchestrator.tracking.database_file import database_id, file_identity
from orchestrator.tracking.logged_models import LoggedModelInfo, SweepModels
from orchestrator.tracking.model_registry import ModelRegistry
from orchestrator.tracking.records import RunRecord, RunSpec, read_record
from orchestrator.tracking.run_contents import content_digest, failure_tags, result_tags, upload_artifacts
from orchestrator.tracking.run_outputs import attach_model, log_dataset, log_layers, points_on_model, require_matching_files
from orchestrator.tracking.runs import FAILURE_TAGS, STOP_TAGS, STORAGE, SUPERSEDED, SWEEP, Run, SweepRuns
from orchestrator.tracking.shared_views import save_views
from orchestrator.tracking.summary_metrics import log_summary_metrics
from orchestrator.tracking.sweep_summary import SweepSummary
from trainables.records.metrics import Point

DESCRIPTION = "mlflow.note.content"  # tag that MLflow shows as the description of a run


class RunSync:
    """The sync of one sweep. Every method may be called again after any failure.

    Attributes:
        parent_run_id: the sweep's own run, once it is open.
        database: number of the SQLite database (`database_id`); 0 for other stores.
    """

    def __init__(
        self,
        target: TrackingTarget,
        storage: Storage,
        sweep: str,
        *,
        log_models: bool = True,
        identity: str = "",
        trial_keys: Iterable[str] = (),
        notify: Notify = print_on_stderr,
        connection: tuple[Any, str] | None = None,
    ) -> None:
        """The sync.

        Args:
            identity: of the storage, where other storages may use the same server.
            trial_keys: trials whose models may be in MLflow already; they are looked up together when one is needed.
            connection: a client and the id of the experiment, in place of those that `connect` gives.
        """
        self.uri = target.uri
        self.items_done = 0  # by `reconcile`, which may take minutes
        self.client, self.experiment_id = connection or connect(target, notify)
        self._file = database_file(target.uri)
        self._identity = self._file and file_identity(self._file)
        self.database = (self._file and database_id(self._file)) or 0
        self.storage = storage
        self.sweep = sweep
        self.log_models = log_models
        self._storage_tag = {STORAGE: identity} if identity else {}
        self.runs = SweepRuns(self.client, self.experiment_id, sweep, identity)
        self._experiment = target.experiment
        self.models = SweepModels(self.client, self.experiment_id)
        self.models.invalidate(trial_keys)
        self.registry = ModelRegistry(self.client, sweep, target.experiment)
        self._notify = notify
        self.parent_run_id = ""

    def is_replaced(self) -> bool:
        """Whether another database has replaced the one that was opened; it lacks what was sent so far."""
        return self._file is not None and file_identity(self._file) != self._identity

    def run_ids(self) -> dict[str, str]:
        """Trial key or warm-up key -> run id, of all runs."""
        return {key: run.run_id for (_, key), run in self.runs.by_key.items() if key}

    def refresh(self, item: RunSpec | None = None) -> None:
        """Reads the runs, or the item's run and models, from MLflow again."""
        if item is None:
            self.runs.load()
        else:
            self.runs.load_one((item.role, item.key))
            self.models.invalidate([item.key])

    def open_sweep(
        self,
        description: str,
        params: dict[str, str],
        tags: dict[str, str],
        *,
        start_ms: int | None = None,
        reopen: bool = True,
    ) -> str:
        """The id of the sweep's run, created if there is none.

        Args:
            description: of a new run, until there is a summary.
            params: those that the run does not have are added; MLflow cannot change a param.
            start_ms: when the sweep started; used for a new run only.
            reopen: set the run to RUNNING; `sync` leaves a run that has ended as it is.

        Raises:
            SetupError: MLflow cannot be used, or has a sweep of this name from another storage.
        """
        with as_setup_error(self.uri):
            self.refresh()
        if self.runs.is_name_taken:
            raise SetupError(
                f"experiment {self._experiment!r} has a sweep {self.sweep!r} of another storage, and their runs would mix",
                f"choose another name (`{command('rename', self.sweep, 'NEW')}`, or --name for a new sweep) or another "
                "tracking.experiment; if that storage is gone, delete its runs in MLflow",
                code="sweep-name-taken",
            )
        with as_setup_error(self.uri):
            tags = tags | self._storage_tag | {"drive.sweep": self.sweep, "drive.role": "sweep"}
            run = self.runs.ensure(SWEEP, self.sweep, tags, start_ms)
            first = {} if DESCRIPTION in run.tags else {DESCRIPTION: description}
            self.runs.log(run, params=params, tags=tags | first)
            self.parent_run_id = run.run_id
            if reopen:
                self.runs.reopen(run)
            return run.run_id

    def start(self, item: RunSpec, start_ms: int | None = None, points: Sequence[Point] = ()) -> str:
        """The id of the item's run, RUNNING; `start_ms` is used for a new run only."""
        run = self._current_run(item, read_record(self.storage, item.role, item.key), start_ms)
        self.runs.reopen(run)
        self._log(item, run, points)
        return run.run_id

    def add_points(self, item: RunSpec, points: Sequence[Point]) -> None:
        """Adds points to the item's run; those that it has already change nothing."""
        run = self.runs.by_key.get((item.role, item.key))
        if run is None:
            run = self._current_run(item, read_record(self.storage, item.role, item.key))
        self._log(item, run, points)

    def finish(self, item: RunSpec, started_ms: int | None = None, points: Sequence[Point] = ()) -> str:
        """The id of the item's run, FINISHED, with everything in the record.

        Like `fail` and `stop`, with `started_ms` and `points` this does the work of `start` and `add_points` too.

        Raises:
            SetupError: there is no result, its model file is missing, or a file does not match the result.
        """
        record = read_record(self.storage, item.role, item.key)
        if item.role == "trial" and not record.result and not record.damage:
            raise SetupError(
                f"trial {item.key} ({item.name}) has no result.json in storage {self.storage.root}", code="result-missing"
            )
        require_matching_files(item, record, self.sweep)
        item = replace(item, tags={name: value for name, value in item.tags.items() if name not in STOP_TAGS})
        return self._end(item, record, "FINISHED", started_ms=started_ms, points=points)

    def fail(self, item: RunSpec, message: str, started_ms: int | None = None, points: Sequence[Point] = ()) -> str:
        """The id of the item's run, FAILED; a recorded error takes precedence over `message`."""
        record = read_record(self.storage, item.role, item.key)
        return self._end(item, record, "FAILED", message, started_ms=started_ms, points=points)

    def stop(self, item: RunSpec, started_ms: int | None = None, points: Sequence[Point] = ()) -> str:
        """The id of the item's run, KILLED: interrupted, and resumable."""
        record = read_record(self.storage, item.role, item.key)
        return self._end(item, record, "KILLED", started_ms=started_ms, points=points)

    def summarize(self, summary: SweepSummary) -> None:
        """Brings what is shown of the sweep as a whole up to date; what is there already stays as it is.

        What goes wrong in the model registry, which not everybody may use, is said and raises nothing.
        """
        with as_setup_error(self.uri):
            run = self.runs.by_key[SWEEP]
            if summary.description:
                self.runs.log(run, tags={DESCRIPTION: summary.description})
            log_summary_metrics(self.runs, run, summary)
            upload_artifacts(self.runs, run, summary.artifacts)
            save_views(self.runs, summary.metrics or ())
        if not self.log_models:
            return
        try:
            with as_setup_error(self.uri):
                self.registry.register(summary.recommended, self.runs)
        except SetupError as error:
            self._notify(f"the model registry lacks the recommended models: {error}")

    def close_sweep(self, status: str, summary: SweepSummary) -> None:
        """Ends the sweep's run with its last child, after its last summary."""
        self.summarize(summary)
        with as_setup_error(self.uri):
            run = self.runs.by_key[SWEEP]
            ends = [child.end_ms for key, child in self.runs.by_key.items() if key != SWEEP and child.end_ms]
            self.runs.end(run, status, max([*ends, run.start_ms]) if ends else None)

    def reconcile(self, items: Sequence[tuple[RunSpec, str]]) -> None:
        """Makes MLflow agree with the records. `items` are all trials and warm-ups of the sweep, each with its state.

        A child run without an item is tagged drive.superseded; nothing stays RUNNING except items that are "running".

        Raises:
            SetupError: the store cannot be used; or some items could not be synced, after all others were.
        """
        problems = []
        with as_setup_error(self.uri):
            self.refresh()
            self.models.invalidate(item.key for item, _ in items if item.role == "trial")
            for item, state in items:
                try:
                    self.reconcile_one(item, state)
                    self.items_done += 1
                except SetupError as error:
                    problems.append(str(error))
            expected = {(item.role, item.key) for item, _ in items} | {SWEEP}
            for key, run in self.runs.by_key.items():
                if key not in expected:
                    self.runs.log(run, tags={SUPERSEDED: "true"})
                    if run.status == "RUNNING":
                        self.runs.end(run, "KILLED", None)
        if problems:
            raise SetupError(
                f"{len(problems)} runs are not up to date in MLflow: " + ". ".join(problems[:3]), code="runs-not-synced"
            )

    def reconcile_one(self, item: RunSpec, state: str) -> None:
        """Makes the item's run agree with its record and its state; again it changes nothing."""
        run = self.runs.by_key.get((item.role, item.key))
        if state == "finished":
            self.finish(item)
        elif state == "failed":
            self.fail(item, "")
        elif state == "stopped" or (run and state == "waiting" and run.status == "RUNNING"):
            self.stop(item)
        elif run and state == "running":
            self.add_points(item, read_record(self.storage, item.role, item.key).points)

    def _current_run(
        self, item: RunSpec, record: RunRecord, start_ms: int | None = None, tags: dict[str, str] | None = None
    ) -> Run:
        """The item's run; a new one is created with `tags` too.

        A run with other points than the record shows a trial that was recomputed since. It would get every step twice, so
        it is superseded: it keeps the tag drive.superseded=recomputed, and a new run takes its place.
        """
        key = (item.role, item.key)
        old = self.runs.by_key.get(key)
        if old and item.role == "trial" and self.runs.conflicts_with(old, record.points):
            self.runs.supersede(key)
        return self._ensure_named(item, start_ms or record.start_ms, tags or {})

    def _ensure_named(self, item: RunSpec, start_ms: int | None, tags: dict[str, str]) -> Run:
        run = self.runs.ensure((item.role, item.key), item.name, self._item_tags(item) | tags, start_ms)
        self.runs.drop_tags(run, (SUPERSEDED,))
        return run

    def _item_tags(self, item: RunSpec) -> dict[str, str]:
        identity = self._storage_tag | {
            "mlflow.parentRunId": self.parent_run_id,
            "drive.sweep": self.sweep,
            "drive.role": item.role,
            "drive.trial_key": item.key,
        }
        return item.tags | identity

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
        started_ms: int | None,
        points: Sequence[Point],
    ) -> str:
        """Brings the run to its final state: data set, model, points and tags, and its end last, which marks it as complete."""
        digest = content_digest(item, record, status)
        known = self.runs.by_key.get((item.role, item.key))
        if known and started_ms is None and self._is_synced(known, record, status, digest):
            self._log(item, self._ensure_named(item, None, {}), points)
            return known.run_id
        tags = result_tags(record) if record.result else {}
        tags |= failure_tags(record, message) if status == "FAILED" else {}
        tags |= {"drive.projection": digest}
        run = self._current_run(item, record, started_ms, tags)
        if started_ms is not None:
            self.runs.reopen(run)
        elif status != "FAILED":
            self.runs.drop_tags(run, FAILURE_TAGS)
        if status == "FINISHED":
            self.runs.drop_tags(run, STOP_TAGS)
        all_points = [*points, *record.points]
        on_model: dict[Point, dict[str, str]] = {}
        if record.result:
            log_dataset(self.runs, run, record)
            log_layers(self.runs, run, record)
        if record.result and self.log_models:
            try:
                model = attach_model(self.runs, self.models, run, item, record)
            except Exception:
                self._log(item, run, all_points)  # the points do not wait for a model that cannot be uploaded
                raise
            tags |= self._model_tags(model)
            on_model = points_on_model(run, model, record)
        self._log(item, run, all_points, tags, on_model)
        last_ms = max((point.time_ms for point in run.sent_points), default=None)
        self.runs.end(run, status, record.end_ms or last_ms)
        return run.run_id

    def _model_tags(self, model: LoggedModelInfo) -> dict[str, str]:
        uploaded_by = model.sweep or self.sweep
        return {"drive.model_id": model.model_id} | ({"drive.reused_from": uploaded_by} if uploaded_by != self.sweep else {})

    def _is_synced(self, run: Run, record: RunRecord, status: str, digest: str) -> bool:
        if run.tags.get("drive.projection") != digest or run.status != status or record.end_ms not in (None, run.end_ms):
            return False
        if not record.result:
            return run.metrics.keys() >= {point.key for point in record.points}
        model_id = run.tags.get("drive.model_id", "")
        has_model = model_id in run.model_ids and self.models.is_ready(record.key, model_id)
        return run.metrics == record.result["metrics"] and (has_model or not self.log_models)
