"""Metrics of a sweep's run: the latest values are those of the last summary, and sending it again adds no point."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from orchestrator.storage.local import LocalStorage
from orchestrator.tracking.client import TrackingTarget
from orchestrator.tracking.sweep_summary import SweepSummary
from tests.support.mlflow_stores import Content, new_target
from tests.support.tracked_sweep import SWEEP, open_sync

ACCURACY, LOW = "best/s0.9/val_accuracy", "best/s0.9/val_accuracy_low"


def summary(step: int, time_ms: int, **values: float) -> SweepSummary:
    metrics = {f"best/s0.9/{name}": value for name, value in values.items()}
    return SweepSummary(metrics=metrics, step=step, time_ms=time_ms)


@pytest.fixture
def target(tmp_path: Path) -> TrackingTarget:
    return new_target(tmp_path / "mlflow")


def shown(target: TrackingTarget, tmp_path: Path, *summaries: SweepSummary) -> tuple[dict[str, float], int]:
    """The latest values, and how many points there are, after each summary was sent twice, each time by a new process."""
    for one in summaries:
        counts = []
        for _ in range(2):
            open_sync(target, LocalStorage(str(tmp_path / "storage"))).summarize(one)
            counts.append(len(Content(target).named(SWEEP)["points"]))
        assert counts[0] == counts[1]
    (run,) = Content(target).runs
    return dict(run.data.metrics), counts[-1]


def test_more_trials_bring_new_values(target: TrackingTarget, tmp_path: Path) -> None:
    latest, count = shown(target, tmp_path, summary(2, 100, val_accuracy=0.5), summary(5, 300, val_accuracy=0.4))
    assert latest == {ACCURACY: 0.4, "trials/finished": 5}
    assert count == 4
    assert [point[:2] for point in Content(target).named(SWEEP)["points"]][:2] == [(ACCURACY, 2), (ACCURACY, 5)]


def test_other_results_replace_the_values(target: TrackingTarget, tmp_path: Path) -> None:
    for step, time_ms, value in [
        (5, 300, 0.5),
        (5, 300, 0.3),  # the same trials, judged otherwise
        (5, 300, 0.7),
        (5, 900, 0.4),  # one of them was computed again
        (3, 200, 0.2),  # records of two are gone
        (4, 950, 0.1),
        (6, 100, 0.8),
    ]:
        latest, _ = shown(target, tmp_path, summary(step, time_ms, val_accuracy=value))
        assert latest == {ACCURACY: value, "trials/finished": step}


def test_what_is_no_longer_known_is_no_number(target: TrackingTarget, tmp_path: Path) -> None:
    first = summary(2, 100, val_accuracy=0.5, val_accuracy_low=math.nan, val_accuracy_high=math.inf)
    latest, _ = shown(target, tmp_path, first)
    assert latest == {ACCURACY: 0.5, "trials/finished": 2}
    known, unknown = summary(3, 200, val_accuracy=0.5, val_accuracy_low=0.4), summary(3, 200, val_accuracy=0.5)
    latest, _ = shown(target, tmp_path, known, unknown)
    assert math.isnan(latest.pop(LOW))
    assert latest == {ACCURACY: 0.5, "trials/finished": 3}
    latest, _ = shown(target, tmp_path, known)
    assert latest[LOW] == 0.4
    latest, _ = shown(target, tmp_path, SweepSummary(metrics={}, step=0))
    assert math.isnan(latest[ACCURACY])
    before = len(Content(target).named(SWEEP)["points"])
    assert shown(target, tmp_path, SweepSummary())[1] == before
