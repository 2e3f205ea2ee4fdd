"""The MLflow runs of one sweep: found by their tags, made, changed. Every change is remembered, so it is sent once.

Read by: mirror.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainables.metrics import Point

BATCH = 1000  # metrics in one call, MLflow's limit
FAILURE_TAGS = ("drive.failure", "drive.failure_kind")
SWEEP = ("sweep", "")  # the key of the sweep's own run

RunKey = tuple[str, str]  # role and trial key or warm-up key


@dataclass(kw_only=True)
class Run:
    """What MLflow holds of a run, as far as we know.

    Attributes:
        metrics: last values when the run was found.
        held: times of the points of an older process, by key and step, where they were looked up.
        sent: points that this process sent.
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
    held: dict[tuple[str, int], int] | None = None
    sent: set[Point] = field(default_factory=set)


class SweepRuns:
    """The runs of one sweep by role and key."""

    def __init__(self, client: Any, experiment_id: str, sweep: str) -> None:
        self.client = client
        self.experiment_id = experiment_id
        self.sweep = sweep
        self.by_key: dict[RunKey, Run] = {}

    def load(self) -> None:
        """Finds every run of the sweep, without those that a recomputation left behind; the oldest of equal ones counts."""
        self.by_key = {}
        for found in self.pages(self.client.search_runs, f"tags.`drive.sweep` = '{self.sweep}'"):
            tags = dict(found.data.tags)
            if tags.get("drive.superseded") == "recomputed":
                continue
            run = Run(
                run_id=found.info.run_id,
                name=found.info.run_name,
                status=found.info.status,
                start_ms=found.info.start_time,
                end_ms=found.info.end_time,
                params=dict(found.data.params),
                tags=tags,
                metrics=dict(found.data.metrics),
                model_ids={output.model_id for output in (found.outputs.model_outputs if found.outputs else ())},
            )
            key = (tags.get("drive.role", ""), tags.get("drive.trial_key", ""))
            if key not in self.by_key or run.start_ms < self.by_key[key].start_ms:
                self.by_key[key] = run

    def pages(self, search: Any, wanted: str) -> Iterator[Any]:
        """Every hit of a search of runs or models in the experiment."""
        token = None
        while True:
            page = search([self.experiment_id], filter_string=wanted, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def ensure(self, key: RunKey, name: str, params: dict[str, str], tags: dict[str, str], start_ms: int | None) -> Run:
        """The run of a key, made if there is none, with this name, these tags and those params that it does not have."""
        from mlflow.entities import Param

        run = self.by_key.get(key)
        if run is None:
            tags = {"mlflow.source.name": "drive-sweep", "mlflow.source.type": "LOCAL"} | tags
            made = self.client.create_run(self.experiment_id, start_time=start_ms, tags=tags, run_name=name)
            run = self.by_key[key] = Run(
                run_id=made.info.run_id,
                name=name,
                status="RUNNING",
                start_ms=made.info.start_time,
                end_ms=None,
                params={},
                tags=dict(tags),
                metrics={},
                model_ids=set(),
            )
        if run.name != name:
            self.client.update_run(run.run_id, name=name)
            run.name = name
        new = {param: value for param, value in params.items() if param not in run.params}
        if new:
            self.client.log_batch(run.run_id, params=[Param(*pair) for pair in new.items()], synchronous=True)
            run.params |= new
        self.set_tags(run, tags)
        return run

    def contradicts(self, run: Run, recorded: Sequence[Point]) -> bool:
        """Whether the run holds a point that is not in the record; looked up for one metric, once."""
        if not run.metrics or run.held is not None:
            return False
        run.held = self._history(run, [min(run.metrics)])
        times = {(point.key, point.step): point.time_ms for point in recorded}
        return any(times.get(point) != time_ms for point, time_ms in run.held.items())

    def set_aside(self, key: RunKey) -> None:
        """Leaves a run behind for good, so that the next `ensure` makes a new one."""
        run = self.by_key[key]
        if run.status == "RUNNING":
            self.end(run, "KILLED", None)
        self.set_tags(run, {"drive.superseded": "recomputed"})
        del self.by_key[key]

    def add_points(self, run: Run, points: Sequence[Point]) -> None:
        """Sends points that the run may not hold yet; MLflow ignores one with equal key, step, value and time."""
        from mlflow.entities import Metric

        if run.tags["drive.role"] == "warmup" and run.held is None:
            # A trunk that died after its last snapshot trains those epochs again; their first points stay.
            run.held = self._history(run, run.metrics)
        held = run.held or {}
        new = [point for point in points if point not in run.sent and (point.key, point.step) not in held]
        for start in range(0, len(new), BATCH):
            batch = new[start : start + BATCH]
            metrics = [Metric(point.key, point.value, point.time_ms, point.step) for point in batch]
            self.client.log_batch(run.run_id, metrics=metrics, synchronous=True)
            run.sent.update(batch)

    def _history(self, run: Run, keys: Iterable[str]) -> dict[tuple[str, int], int]:
        return {
            (metric.key, metric.step): metric.timestamp
            for key in keys
            for metric in self.client.get_metric_history(run.run_id, key)
        }

    def set_tags(self, run: Run, tags: dict[str, str]) -> None:
        from mlflow.entities import RunTag

        new = {name: value for name, value in tags.items() if run.tags.get(name) != value}
        if new:
            self.client.log_batch(run.run_id, tags=[RunTag(*pair) for pair in new.items()], synchronous=True)
            run.tags |= new

    def drop_tags(self, run: Run, names: Iterable[str]) -> None:
        for name in names:
            if name in run.tags:
                self.client.delete_tag(run.run_id, name)
                del run.tags[name]

    def reopen(self, run: Run) -> None:
        self.drop_tags(run, FAILURE_TAGS)
        if run.status != "RUNNING":
            self.client.update_run(run.run_id, status="RUNNING")
            run.status = "RUNNING"

    def end(self, run: Run, status: str, end_ms: int | None) -> None:
        """Ends the run; without a recorded time a run that has ended so keeps its own, any other ends now."""
        if run.status == status and end_ms in (None, run.end_ms):
            return
        end_ms = end_ms or int(time.time() * 1000)
        self.client.set_terminated(run.run_id, status, end_ms)
        run.status, run.end_ms = status, end_ms
