"""Brings the metrics of a sweep's own run up to date, so that the latest values are those of the present records.

MLflow shows the value with the highest step, then time, and removes none. The step is the number of finished trials, and mostly
grows. When it falls, since trials are computed again, or when a value changes at the same step, the new value comes after the
last one by a millisecond. A value that is no longer known becomes NaN. If all values are there, nothing is sent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from orchestrator.tracking.runs import Run, SweepRuns
from orchestrator.tracking.sweep_summary import SweepSummary
from trainables.records.metrics import Point

BEST = "best/"  # before the name of a group
FINISHED = "trials/finished"


def log_summary_metrics(runs: SweepRuns, run: Run, summary: SweepSummary) -> None:
    """Sends what the run's latest values lack."""
    if summary.metrics is None:
        return
    values = {name: value if math.isfinite(value) else math.nan for name, value in summary.metrics.items()}
    gone = {name: math.nan for name in run.latest if name.startswith(BEST) and name not in values}
    wanted = {FINISHED: float(summary.step)} | values | gone
    if all(_is_shown(run, name, value) for name, value in wanted.items()):
        return
    points = [point for name, value in wanted.items() if (point := _point(run.latest, name, value, summary)) is not None]
    runs.log(run, points)
    run.latest |= {point.key: point for point in points}


def _is_shown(run: Run, name: str, value: float) -> bool:
    """NaN is shown where there never was a value."""
    latest = run.latest.get(name)
    return math.isnan(value) if latest is None else _same(latest.value, value)


def _point(latest: Mapping[str, Point], name: str, value: float, summary: SweepSummary) -> Point | None:
    """The next point of a metric; None if there is nothing to be said."""
    last = latest.get(name)
    if last is None:
        return None if math.isnan(value) else Point(name, summary.step, value, summary.time_ms)
    if (summary.step, summary.time_ms) > (last.step, last.time_ms):
        return Point(name, summary.step, value, summary.time_ms)
    return None if _same(last.value, value) else Point(name, last.step, value, last.time_ms + 1)


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))
