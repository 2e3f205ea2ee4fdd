"""The tables of `Sweep`: trials and curves as DataFrames. pandas is imported here alone, when it is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.errors import SetupError
from orchestrator.reporting.sweep_results import SweepResults
from orchestrator.state.sweep_state import TrialStatus
from trainables.config.automatic import as_chosen
from trainables.config.keys import flatten, from_canonical
from trainables.config.trial import TrialConfig
from trainables.records.metrics import Point

if TYPE_CHECKING:
    from pandas import DataFrame

SETTINGS = ("method", "warmup_epochs", "prune_iterations", "sparsity", "seed")
METRICS = {
    "val_accuracy": "val/accuracy",
    "test_accuracy": "test/accuracy",
    "flops": "model/flops",
    "speedup": "model/theoretical_speedup",
    "bytes": "model/bytes",
    "seconds": "cost/total_seconds",
    "epochs": "cost/total_dense_epochs",
}
CURVES = {"epoch": ("train/", "val/"), "round": ("prune/",)}  # what a table has a line for -> its metrics


def trial_table(results: SweepResults) -> DataFrame:
    """See `Sweep.trials`."""
    trials = list(results.state.trials.values())
    values = [flatten(trial.config) for trial in trials]
    names = dict.fromkeys(name for one in values for name in one)
    varying = [name for name in names if name not in SETTINGS and _varies(name, values)]
    rows = [
        _identity(trial) | _settings(trial) | {name: one.get(name) for name in varying} | _outcome(trial, results)
        for trial, one in zip(trials, values, strict=True)
    ]
    columns = ("key", "name", "state", "error", *SETTINGS, *varying, *METRICS, "kept", "mlflow_run_id")
    return _pandas().DataFrame(rows, columns=list(columns)).astype({"prune_iterations": "Int64"})  # dense trials have none


def _varies(name: str, values: Sequence[Mapping[str, Any]]) -> bool:
    """Whether trials that have this key differ in it; a dense trial lacks the options of methods."""
    return len({repr(one[name]) for one in values if name in one}) > 1


def curve_table(points: Sequence[Point], per: str) -> DataFrame:
    """See `Sweep.curves`."""
    rows: dict[int, dict[str, float]] = {}
    for point in points:
        if point.key.startswith(CURVES[per]):
            rows.setdefault(point.step, {})[point.key] = point.value
    names = dict.fromkeys(point.key for point in points if point.key.startswith(CURVES[per]))
    pandas = _pandas()
    return pandas.DataFrame(
        [rows[step] for step in sorted(rows)], index=pandas.Index(sorted(rows), name=per, dtype=int), columns=list(names)
    )


def _identity(trial: TrialStatus) -> dict[str, Any]:
    return {"key": trial.key, "name": trial.name, "state": trial.state, "error": trial.error}


def _settings(trial: TrialStatus) -> dict[str, Any]:
    """What a trial was asked for, with the numbers that it chose itself."""
    config = from_canonical(TrialConfig, trial.config)
    chosen = as_chosen(config, trial.metrics)
    iterations = chosen.rounds if chosen.rounds else None
    return {
        "method": config.method,
        "warmup_epochs": chosen.warmup_epochs,
        "prune_iterations": iterations,
        "sparsity": config.sparsity,
        "seed": config.seed,
    }


def _outcome(trial: TrialStatus, results: SweepResults) -> dict[str, Any]:
    """What a finished trial has given; nothing of one that has not."""
    found: Mapping[str, float] = trial.metrics if trial.state == "finished" else {}
    record = results.records.get(trial.key, {})
    kept = record["kept_weights"] / record["prunable_weights"] if record.get("prunable_weights") else None
    return {name: found.get(metric) for name, metric in METRICS.items()} | {
        "kept": kept,
        "mlflow_run_id": trial.mlflow_run_id,
    }


def _pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        raise SetupError(
            f"tables need pandas, which cannot be imported: {error}", "install it", code="pandas-missing"
        ) from error
    return pandas
