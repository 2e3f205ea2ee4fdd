"""The points that a run has in MLflow: one query of a SQLite store, one call for each metric of a server."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from orchestrator.tracking.client import database_file
from orchestrator.tracking.database_file import open_read_only
from orchestrator.tracking.runs import Run
from trainables.records.metrics import Point

OF_RUN = "SELECT key, step, CASE is_nan WHEN 1 THEN NULL ELSE value END, timestamp FROM metrics WHERE run_uuid = ?"


def sent_points(uri: str, client: Any, run: Run) -> Iterator[Point]:
    """Every point of the run; NaN where MLflow has it so."""
    file = database_file(uri)
    if file is not None:
        with closing(open_read_only(file)) as database:
            for key, step, value, time_ms in database.execute(OF_RUN, (run.run_id,)):
                yield Point(key, step, math.nan if value is None else value, time_ms)
        return
    for key in run.metrics:
        for one in client.get_metric_history(run.run_id, key):
            yield Point(one.key, one.step, one.value, one.timestamp)


def point_differences(recorded: list[Point], sent: list[Point], *, exact: bool) -> tuple[int, int]:
    """How many points of the record are not in the run, and how many of the run are not in the record.

    Args:
        exact: compare times and finite values too; without it only what the record has is asked for. A warm-up that died after
            its last snapshot trains those epochs again, and its first points stay.
    """
    if not exact:
        places = {(one.key, one.step) for one in sent}
        return sum((one.key, one.step) not in places for one in recorded), 0
    first, second = ({_facts(one) for one in points} for points in (recorded, sent))
    return len(first - second), len(second - first)


def _facts(point: Point) -> tuple[object, ...]:
    """MLflow stores infinities as other numbers."""
    value = point.value if math.isfinite(point.value) and abs(point.value) < 1e300 else None
    return point.key, point.step, point.time_ms, value
