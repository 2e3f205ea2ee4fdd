"""What a finished trial leaves in its run besides points and tags: its data set, and its sparse model with its metrics.

Read by: mirror.py.
"""

from __future__ import annotations

import json
from typing import Any

from orchestrator.errors import SetupError
from orchestrator.model_upload import SparseModelRecord, find_model, upload_model
from orchestrator.run_records import Item, RunRecord
from orchestrator.sweep_runs import Run, SweepRuns

MODEL_METRICS = ("test/accuracy", "val/accuracy", "prune/sparsity")


def attach_results(runs: SweepRuns, run: Run, item: Item, record: RunRecord) -> Any:
    """Puts data set and model into the run and returns the logged model; again it changes nothing.

    The model is uploaded if the experiment does not have it, else linked.

    Raises:
        SetupError: it would have to be uploaded, and its file is gone.
    """
    from mlflow.entities import LoggedModelOutput

    _log_dataset(runs.client, run, record)
    model = find_model(runs.client, runs.experiment_id, item.key, record.result["model_sha256"], run.run_id)
    if model is None:
        model = upload_model(runs.client, runs.experiment_id, run.run_id, _to_upload(item, record, runs.sweep))
    if model.model_id not in run.model_ids:  # MLflow refuses to link it twice
        last_step = max((point.step for point in record.points), default=0)
        runs.client.log_outputs(run.run_id, [LoggedModelOutput(model.model_id, last_step)])
        run.model_ids.add(model.model_id)
    if model.source_run_id == run.run_id:  # else it has its metrics from that run
        _log_model_metrics(runs.client, run, model, record)
    return model


def _log_dataset(client: Any, run: Run, record: RunRecord) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    result = record.result
    dataset = Dataset(
        name=record.dataset_name,
        digest=record.dataset_digest,
        source_type="drive-sweep",
        source=json.dumps(result["config"]["dataset"], sort_keys=True),
        profile=json.dumps({"image_shape": result["image_shape"], "num_classes": result["num_classes"]}),
    )
    context = InputTag("mlflow.data.context", "train, validation, test")
    client.log_inputs(run.run_id, [DatasetInput(dataset, [context])])


def _to_upload(item: Item, record: RunRecord, sweep: str) -> SparseModelRecord:
    content, result = record.model_file(), record.result
    if content is None:
        raise SetupError(
            f"trial {item.key} ({item.name}): its model file is gone from storage {record.storage.root}; "
            "`drive-sweep run --recompute` makes it again"
        )
    config = result["config"]
    settings = {"sparsity": str(config.get("sparsity", 0.0)), "warmup_epochs": str(config.get("warmup_epochs", 0))}
    if config.get("method") != "dense":
        settings["prune_iterations"] = str(config.get("prune_iterations", 1))
    return SparseModelRecord(
        name=f"sparse-{item.name.replace('.', '_')}",  # MLflow allows no dots in a name of a model
        content=content,
        image_shape=tuple(result["image_shape"]),
        num_classes=result["num_classes"],
        params=item.params | settings,
        tags={"drive.sweep": sweep, "drive.trial_key": item.key, "drive.model_sha256": result["model_sha256"]},
    )


def _log_model_metrics(client: Any, run: Run, model: Any, record: RunRecord) -> None:
    """Shows the headline metrics on the model too; for the run they are points that it already holds."""
    from mlflow.entities import Metric

    last = {point.key: point for point in sorted(record.points, key=lambda point: point.step)}
    metrics = [
        Metric(
            point.key,
            point.value,
            point.time_ms,
            point.step,
            model_id=model.model_id,
            dataset_name=record.dataset_name,
            dataset_digest=record.dataset_digest,
            run_id=run.run_id,
        )
        for key in MODEL_METRICS
        if (point := last.get(key))
    ]
    client.log_batch(run.run_id, metrics=metrics, synchronous=True)
