"""The trials of a sweep as rows of a table, for CSV and Parquet."""

from __future__ import annotations

import csv
import io
from typing import Any

from orchestrator.reporting.sweep_results import SweepResults
from trainables.config.automatic import as_chosen
from trainables.config.keys import flatten, from_canonical
from trainables.config.trial import TrialConfig

RECORD_FIELDS = (
    "prunable_weights",
    "kept_weights",
    "flops",
    "kept_flops",
    "model_bytes",
    "device",
    "model_sha256",
    "mask_sha256",
)


def trial_rows(results: SweepResults) -> list[dict[str, Any]]:
    """A row for each trial: what it is, its whole configuration, and of a finished one all metrics at its end.

    Columns are the same in all rows; None stands where something is not known.
    """
    rows = []
    for trial in results.state.trials.values():
        config = from_canonical(TrialConfig, trial.config)
        finished = trial.state == "finished"
        chosen = as_chosen(config, trial.metrics)
        record = results.records.get(trial.key, {})
        rows.append(
            {
                "key": trial.key,
                "name": trial.name,
                "state": trial.state,
                "mlflow_run_id": trial.mlflow_run_id,
                "error": trial.error,
            }
            | {f"config.{name}": value for name, value in flatten(trial.config).items()}
            | {"chosen.warmup_epochs": chosen.warmup_epochs, "chosen.prune_iterations": chosen.rounds}
            | {name: record.get(name) for name in RECORD_FIELDS}
            | (dict(sorted(trial.metrics.items())) if finished else {})
        )
    columns = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in columns} for row in rows]


def to_csv(rows: list[dict[str, Any]]) -> bytes:
    """The rows with a head; nothing stands where something is not known.

    A text that a spreadsheet would take for a formula has an apostrophe before it, which such programs hide.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _no_formula(value) for name, value in row.items()} for row in rows)
    return text.getvalue().encode()


def _no_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def to_parquet(rows: list[dict[str, Any]]) -> bytes:
    """The same rows; a column of values of several types becomes one of texts."""
    import pyarrow
    import pyarrow.parquet

    columns = {name: _column([row[name] for row in rows]) for name in (rows[0] if rows else ())}
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table(columns), sink)
    return bytes(sink.getvalue())


def _column(values: list[Any]) -> list[Any]:
    types = {type(value) for value in values if value is not None}
    if types <= {int, float}:
        return [float(value) if float in types and value is not None else value for value in values]
    return (
        values
        if len(types) <= 1 and not types & {list, tuple, dict}
        else [None if value is None else str(value) for value in values]
    )
