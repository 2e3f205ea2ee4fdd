"""Finds, creates and changes the MLflow runs of one sweep. Every change is remembered, so it is sent once."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from trainables.records.metrics import Point

BATCH = 800  # metrics in one call: MLflow takes 1000 entries, of which 100 params and 100 tags
FAILURE_TAGS = ("drive.failure", "drive.failure_kind")
STOP_TAGS = ("drive.stopped", "drive.rung")  # of a trial that a search stopped early
SWEEP = ("sweep", "")  # the key of the sweep's own run
STORAGE = "drive.storage"  # tag of every run on a tracking server: the identity of the storage whose run it is
SUPERSEDED = "drive.superseded"  # tag of a run, model or version that counts no more, with the reason
NOT_LOADED = ("recomputed", "doubled", "foreign")  # reasons for which a run never counts again

RunKey = tuple[str, str]  # role and trial key or warm-up key


@dataclass(kw_only=True)
class Run:
    """A run in MLflow, as far as it is known.

    Attributes:
        metrics: last values when the run was loaded.
        latest: the same as points, with their steps and times.
        known_points: times of the points that an older process sent, by key and step; None if they were not looked up.
        sent_points: points that this process has sent since the run started.
    """

    run_id: str
    name: str
    status: str
    start_ms: int
    end_ms: int | None
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]
    model_ids: set[str]
    known_points: dict[tuple[str, int], int] | None = None
    sent_points: set[Point] = field(default_factory=set)
    latest: dict[str, Point] = field(default_factory=dict)


def is_of_storage(tags: Mapping[str, str], identity: str) -> bool:
    """Whether a run with these tags may be of the storage; those of earlier versions do not say of which one they are."""
    return tags.get(STORAGE, identity) == identity


class SweepRuns:
    """The runs of one sweep by role and key.

    Attributes:
        identity: of its storage; runs of another one are left alone. Empty where there is no other.
        is_name_taken: another storage has a sweep of this name.
    """

    def __init__(self, client: Any, experiment_id: str, sweep: str, identity: str = "") -> None:
        self.client = client
        self.experiment_id = experiment_id
        self.sweep = sweep
        self.identity = identity
        self.is_name_taken = False
        self.by_key: dict[RunKey, Run] = {}
        self.doubles: dict[RunKey, list[Run]] = {}  # further runs of the same key

    def load(self) -> None:
        """Loads every run of the sweep that counts; of runs with the same key the oldest one does."""
        self.by_key, self.doubles, self.is_name_taken = {}, {}, False
        self._find(f"tags.`drive.sweep` = '{self.sweep}'")

    def load_one(self, key: RunKey) -> None:
        """Loads the run of one key again; the others stay."""
        self.by_key.pop(key, None)
        self.doubles.pop(key, None)
        self._find(f"tags.`drive.sweep` = '{self.sweep}' AND tags.`drive.trial_key` = '{key[1]}'")

    def _find(self, query: str) -> None:
        for hit in pages(self.client.search_runs, self.experiment_id, query):
            tags = dict(hit.data.tags)
            if not is_of_storage(tags, self.identity):
                self.is_name_taken = True
                continue
            if tags.get(SUPERSEDED) in NOT_LOADED:
                continue
            run = Run(
                run_id=hit.info.run_id,
                name=hit.info.run_name,
                status=hit.info.status,
                start_ms=hit.info.start_time,
                end_ms=hit.info.end_time,
                params=dict(hit.data.params),
                tags=tags,
                metrics=dict(hit.data.metrics),
                model_ids={output.model_id for output in (hit.outputs.model_outputs if hit.outputs else ())},
                latest={one.key: Point(one.key, one.step, one.value, one.timestamp) for one in hit.data._metric_objs},
            )
            key = (tags.get("drive.role", ""), tags.get("drive.trial_key", ""))
            counted = min(self.by_key.get(key, run), run, key=lambda one: one.start_ms)
            if key in self.by_key:
                self.doubles.setdefault(key, []).append(self.by_key[key] if counted is run else run)
            self.by_key[key] = counted

    def ensure(self, key: RunKey, name: str, tags: dict[str, str], start_ms: int | None) -> Run:
        """The run of a key with this name, created with these tags if there is none."""
        run = self.by_key.get(key)
        if run is None:
            tags = {"mlflow.source.name": "drive-sweep", "mlflow.source.type": "LOCAL"} | tags
            created = self.client.create_run(self.experiment_id, start_time=start_ms, tags=tags, run_name=name)
            run = self.by_key[key] = Run(
                run_id=created.info.run_id,
                name=name,
                status="RUNNING",
                start_ms=created.info.start_time,
                end_ms=None,
                params={},
                tags=dict(tags),
                metrics={},
                model_ids=set(),
            )
        if run.name != name:
            self.client.update_run(run.run_id, name=name)
            run.name = name
        return run

    def conflicts_with(self, run: Run, recorded: Sequence[Point]) -> bool:
        """Whether the run has a point that is not in the record; looked up once, for one metric."""
        if not run.metrics or run.known_points is not None:
            return False
        run.known_points = self._history(run, [min(run.metrics)])
        times = {(point.key, point.step): point.time_ms for point in recorded}
        return any(times.get(point) != time_ms for point, time_ms in run.known_points.items())

    def supersede(self, key: RunKey) -> None:
        """Marks a run as recomputed, so that the next `ensure` creates a new one."""
        run = self.by_key[key]
        if run.status == "RUNNING":
            self.end(run, "KILLED", None)
        self.log(run, tags={SUPERSEDED: "recomputed"})
        del self.by_key[key]

    def log(
        self,
        run: Run,
        points: Sequence[Point] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        on_model: Mapping[Point, Mapping[str, str]] | None = None,
    ) -> None:
        """Sends what the run may lack, mostly in one call. Tags come last: if one is there, so is everything else of the call.

        Args:
            points: MLflow ignores one with equal key, step, value and time.
            params: only those that the run does not have are sent; MLflow never changes a param.
            on_model: points that a logged model shows too, with its id and data set as fields of Metric; sent in any case.
        """
        from mlflow.entities import Metric, Param, RunTag

        shown = on_model or {}
        new = dict.fromkeys([*(point for point in points if self._may_be_missing(run, point)), *shown])
        metrics = [Metric(point.key, point.value, point.time_ms, point.step, **shown.get(point, {})) for point in new]
        new_params = {name: value for name, value in (params or {}).items() if name not in run.params}
        new_tags = {name: value for name, value in (tags or {}).items() if run.tags.get(name) != value}
        *full, rest = [metrics[start : start + BATCH] for start in range(0, len(metrics), BATCH)] or [[]]
        for batch in full:
            self.client.log_batch(run.run_id, metrics=batch, synchronous=True)
        if rest or new_params or new_tags:
            self.client.log_batch(
                run.run_id,
                metrics=rest,
                params=[Param(*pair) for pair in new_params.items()],
                tags=[RunTag(*pair) for pair in new_tags.items()],
                synchronous=True,
            )
        run.sent_points.update(new)
        run.params |= new_params
        run.tags |= new_tags

    def _may_be_missing(self, run: Run, point: Point) -> bool:
        if run.known_points is None and run.tags["drive.role"] == "warmup":
            # A warm-up that died after its last snapshot trains those epochs again; their first points stay.
            run.known_points = self._history(run, run.metrics)
        return point not in run.sent_points and (point.key, point.step) not in (run.known_points or {})

    def _history(self, run: Run, keys: Iterable[str]) -> dict[tuple[str, int], int]:
        return {
            (metric.key, metric.step): metric.timestamp
            for key in keys
            for metric in self.client.get_metric_history(run.run_id, key)
        }

    def drop_tags(self, run: Run, names: Iterable[str]) -> None:
        for name in names:
            if name in run.tags:
                self.client.delete_tag(run.run_id, name)
                del run.tags[name]

    def reopen(self, run: Run) -> None:
        """Sets the run to RUNNING, and only then removes the tags of its former end."""
        if run.status != "RUNNING":
            self.client.update_run(run.run_id, status="RUNNING")
            run.status = "RUNNING"
        self.drop_tags(run, FAILURE_TAGS)

    def end(self, run: Run, status: str, end_ms: int | None) -> None:
        """Ends the run; without a recorded time one with this status keeps its end, and any other ends now."""
        run.sent_points.clear()
        if run.status == status and end_ms in (None, run.end_ms):
            return
        end_ms = end_ms or int(time.time() * 1000)
        self.client.set_terminated(run.run_id, status, end_ms)
        run.status, run.end_ms = status, end_ms


def pages(search: Any, experiment_id: str, query: str) -> Iterator[Any]:
    """Every hit of a client's search of runs or models in an experiment."""
    return every_hit(partial(search, [experiment_id]), query)


def every_hit(search: Any, query: str) -> Iterator[Any]:
    """Every hit of a client's search of what belongs to no experiment, such as registered models."""
    token = None
    while True:
        page = search(filter_string=query, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
