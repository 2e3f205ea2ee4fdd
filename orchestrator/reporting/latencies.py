"""The measured latencies of a sweep's trials, among their metrics."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from orchestrator.reporting.aggregate import SPEEDUP
from orchestrator.state.sweep_state import SweepState
from orchestrator.storage.base import Storage
from orchestrator.storage.layout import trial_file
from trainables.records.file_names import LATENCY
from trainables.records.latency_record import decode_latency, latency_points
from trainables.records.metrics import DamagedRecordError, MetricLog


def with_latencies(storage: Storage, state: SweepState) -> SweepState:
    """The state in which finished trials have the newest measurement of each batch size; a damaged file counts as none."""
    finished = [key for key, trial in state.trials.items() if trial.state == "finished"]
    trials = dict(state.trials)
    contents = storage.read_all([trial_file(key, LATENCY) for key in finished])
    for key, content in zip(finished, contents, strict=True):
        with suppress(DamagedRecordError):
            if measured := MetricLog(latency_points(decode_latency(content, key))).last_values():
                trials[key] = replace(trials[key], metrics=trials[key].metrics | measured | _speedup(measured))
    return replace(state, trials=trials)


def _speedup(measured: dict[str, float]) -> dict[str, float]:
    """The speed-up at the smallest batch measured in single precision, which is the latency of an image where that is 1."""
    batches = [int(key.split("/")[1].removeprefix("batch")) for key in measured if key.endswith("/speedup")]
    return {SPEEDUP: measured[f"latency/batch{min(batches)}/speedup"]} if batches else {}
