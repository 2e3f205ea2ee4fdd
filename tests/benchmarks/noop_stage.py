"""A stage that computes nothing: it publishes a finished trial, after a sleep if asked to. Needs no PyTorch.

What is left of a sweep of such stages is the cost of the sweep itself: Ray, Tune, the driver, the storage, MLflow.
"""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainables.config.keys import NUMERICS
from trainables.records.file_names import METRICS, MODEL, RESULT
from trainables.records.metrics import MetricLog
from trainables.records.result_record import encode_result
from trainables.runtime.stacks import stacks_on_signal
from trainables.worker.stage import Stage, SweepSettings

SLEEP_S = "DRIVE_SWEEP_NOOP_SECONDS"  # environment of the workers, which they have from the driver
EPOCHS = "DRIVE_SWEEP_NOOP_EPOCHS"
MODEL_FILE = "DRIVE_SWEEP_NOOP_MODEL"


def noop_stage(config: dict[str, Any], settings: SweepSettings) -> None:
    """Reports and publishes what a real stage does, for a trial that took no time."""
    from ray import tune

    stage = Stage(**config["stage"])
    started_ms = begin()
    until = time.monotonic() + float(os.environ.get(SLEEP_S, "0"))
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(settings.progress_seconds, left))
        tune.report({"event": "progress", "phase": "sparse", "position": 0, "points": [], "log": []})
    points = MetricLog()
    for epoch in range(1, int(os.environ.get(EPOCHS, "3")) + 1):
        points.record(epoch, {"train/loss": 1 / epoch, "val/accuracy": 1 - 1 / (epoch + 1)})
    points.record(epoch, {"test/accuracy": 0.5, "prune/sparsity": 0.9, "cost/search_seconds": 0.0, "cost/total_seconds": 0.0})
    publish_result(stage, settings, started_ms, points)
    end(points)


def begin() -> int:
    """Reports that this process has taken the stage up; returns the time in milliseconds."""
    import ray
    from ray import tune

    node = str(ray.get_runtime_context().get_node_id())
    tune.report({"event": "begun", "pid": os.getpid(), "node": node, "stacks": stacks_on_signal()})
    return int(time.time() * 1000)


def end(points: MetricLog) -> None:
    """Reports that the stage is finished."""
    from ray import tune

    ended = {"event": "ended", "status": "finished", "message": "", "log": []}
    tune.report(ended | {"metrics": list(points.last_values().items()), "model_sha256": "0" * 64})


def publish_result(stage: Stage, settings: SweepSettings, started_ms: int, points: MetricLog, **more: Any) -> None:
    """Writes the whole record of a finished trial with these points.

    Args:
        more: fields of the result that no reader knows.
    """
    files = settings.folders.trial(stage.key, stage.attempt)
    model = Path(os.environ[MODEL_FILE]).read_bytes() if MODEL_FILE in os.environ else b"none"
    files.publish(MODEL, model)
    metrics = points.to_lines()
    files.publish(METRICS, metrics)
    result = settings.provenance | {
        "config": stage.config,
        "numerics": NUMERICS,
        "attempt": stage.attempt,
        "model_sha256": "0" * 64,
        "model_bytes": len(model),
        "image_shape": [3, 32, 32],
        "num_classes": 10,
        "prunable_weights": 1,
        "kept_weights": 1,
        "emptied_layers": [],
        "layers": [],
        "metrics": points.last_values(),
        "metric_points": len(points.points()),
        "fingerprints": [asdict(settings.runtime) | {"pid": os.getpid(), "processor": "none", "torch": "none", "cudnn": None}],
        "started_ms": started_ms,
        "finished_ms": int(time.time() * 1000),
        **more,
    }
    files.publish(RESULT, encode_result(stage.key, result, metrics, model)[1])
