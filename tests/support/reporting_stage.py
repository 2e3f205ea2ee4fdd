"""A stage that computes nothing, but records and reports points at a steady rate, as a real one does. Needs no PyTorch."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Any

from tests.benchmarks.noop_stage import begin, end, publish_result
from trainables.records.file_names import METRICS
from trainables.records.metrics import MetricLog
from trainables.worker.progress import ProgressReporter
from trainables.worker.stage import Stage, SweepSettings

POINTS = "DRIVE_SWEEP_NOOP_POINTS"  # environment of the workers, which they have from the driver: points of a stage
RATE = "DRIVE_SWEEP_NOOP_RATE"  # a second
REPORT_S = "DRIVE_SWEEP_NOOP_REPORT_S"  # between two reports; by default as often as the sweep lets a stage report


@dataclass
class _State:
    """What a reporter wants to know of a trial."""

    phase: str = "train"
    position: int = 0
    metrics: MetricLog = field(default_factory=MetricLog)


def reporting_stage(config: dict[str, Any], settings: SweepSettings) -> None:
    """Records so many points at that rate; its result says how long it was held up at most, and how often it reported."""
    from ray import tune

    stage = Stage(**config["stage"])
    started_ms = begin()
    files = settings.folders.trial(stage.key, stage.attempt)
    reports = 0

    def report(content: dict[str, Any]) -> None:
        nonlocal reports
        reports += 1
        tune.report(content)

    reporter = ProgressReporter(report, float(os.environ.get(REPORT_S) or settings.progress_seconds))
    state, rate = _State(), float(os.environ[RATE])
    start = published = time.monotonic()
    longest_s = 0.0
    for step in range(1, int(os.environ[POINTS]) + 1):
        began = time.monotonic()
        state.metrics.record(step, {"train/loss": 1 / step})
        state.position = step
        if began - published >= settings.metrics_seconds:
            files.publish(METRICS, state.metrics.to_lines())
            published = began
        reporter.progress(state)  # type: ignore[arg-type]
        now = time.monotonic()
        longest_s = max(longest_s, now - began)
        time.sleep(max(0.0, start + step / rate - now))
    state.metrics.record(step, {"val/accuracy": 0.5, "test/accuracy": 0.5, "prune/sparsity": 0.9})
    state.metrics.record(step, {"cost/search_seconds": 0.0, "cost/total_seconds": time.monotonic() - start})
    publish_result(stage, settings, started_ms, state.metrics, noop={"longest_block_s": longest_s, "reports": reports})
    end(state.metrics)
