"""What a finished trial leaves in its run besides points and tags: its data set, its layer table, and its sparse model."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

from orchestrator.command_line import command
from orchestrator.errors import SetupError
from orchestrator.storage.layout import trial_file
from orchestrator.tracking.logged_models import LoggedModelInfo, SweepModels
from orchestrator.tracking.model_packaging import SparseModelRecord
from orchestrator.tracking.records import RunRecord, RunSpec
from orchestrator.tracking.runs import Run, SweepRuns
from trainables.config.lookup import is_dense
from trainables.custom.references import is_custom
from trainables.records.file_names import NETWORK
from trainables.records.metrics import Point

MODEL_METRICS = ("test/accuracy", "val/accuracy", "prune/sparsity")
LAYERS = "layers.csv"
LAYER_COLUMNS = ("name", "shape", "kept", "density", "flops", "kept_flops", "score_mean", "score_std")


def log_dataset(runs: SweepRuns, run: Run, record: RunRecord) -> None:
    """Puts the data set into the run; again it changes nothing."""
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
    runs.client.log_inputs(run.run_id, [DatasetInput(dataset, [context])])


def log_layers(runs: SweepRuns, run: Run, record: RunRecord) -> None:
    """Puts the layer table into the run's artifacts, as CSV, which MLflow shows as a table; again it changes nothing."""
    content = io.StringIO()
    table = csv.DictWriter(content, LAYER_COLUMNS, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    for layer in record.result["layers"]:
        table.writerow(layer | {"shape": "x".join(map(str, layer["shape"]))})
    runs.client.log_text(run.run_id, content.getvalue(), LAYERS)


def attach_model(runs: SweepRuns, models: SweepModels, run: Run, item: RunSpec, record: RunRecord) -> LoggedModelInfo:
    """Puts the model into the run: uploaded if the experiment does not have it, else linked; again it changes nothing.

    Raises:
        SetupError: it would have to be uploaded, and its file is gone.
    """
    from mlflow.entities import LoggedModelOutput

    elsewhere = record.result.get("sweep") != runs.sweep  # then that sweep may have uploaded it since we looked
    model = models.find(item.key, record.result["model_sha256"], run.run_id, again=elsewhere)
    if model is None:
        with record.model_file() as file:
            model = models.upload(item.key, run.run_id, _to_upload(item, record, runs.sweep, file))
    if model.model_id not in run.model_ids:  # MLflow refuses to link it twice
        last_step = max((point.step for point in record.points), default=0)
        runs.client.log_outputs(run.run_id, [LoggedModelOutput(model.model_id, last_step)])
        run.model_ids.add(model.model_id)
    return model


def model_name(run_name: str) -> str:
    """The name of a run's model, which MLflow lets have no dots, colons, quotes and other signs."""
    return "sparse-" + re.sub(r"[^\w-]", "_", run_name)


def points_on_model(run: Run, model: LoggedModelInfo, record: RunRecord) -> dict[Point, dict[str, str]]:
    """The headline metrics, which the model shows too; a model that another run uploaded has them from there."""
    if model.source_run_id != run.run_id:
        return {}
    last = {point.key: point for point in sorted(record.points, key=lambda point: point.step)}
    shown_with = {
        "model_id": model.model_id,
        "dataset_name": record.dataset_name,
        "dataset_digest": record.dataset_digest,
        "run_id": run.run_id,
    }
    return {last[key]: shown_with for key in MODEL_METRICS if key in last}


def require_matching_files(item: RunSpec, record: RunRecord, sweep: str, model: Path | None = None) -> None:
    """Raises SetupError if the points, or the model file, do not match the trial's result."""
    mismatch = record.file_mismatch(model)
    if mismatch:
        raise SetupError(
            f"{item.role} {item.key} ({item.name}): {mismatch}",
            f"something else wrote to storage {record.storage.root}, or an attempt that had been cut off; "
            f"`{command('resume', sweep)}` computes it again",
            code="record-damaged",
        )


def _to_upload(item: RunSpec, record: RunRecord, sweep: str, file: Path | None) -> SparseModelRecord:
    result = record.result
    network = record.storage.read(trial_file(item.key, NETWORK)) or b""
    if file is None or (is_custom(result["config"]["model"]) and not network):
        raise SetupError(
            f"trial {item.key} ({item.name}): its model file is missing in storage {record.storage.root}",
            f"`{command('run', '--recompute')}` creates it again",
            code="model-missing",
        )
    require_matching_files(item, record, sweep, file)
    config = result["config"]
    chosen = {key: choice["value"] for key, choice in result.get("choices", {}).items()}
    numbers = {"warmup_epochs": config.get("warmup_epochs", 0), "prune_iterations": config.get("prune_iterations", 1)} | chosen
    settings = {"sparsity": str(config.get("sparsity", 0.0)), "warmup_epochs": str(numbers["warmup_epochs"])}
    if not is_dense(str(config.get("method", ""))):
        settings["prune_iterations"] = str(numbers["prune_iterations"])
    return SparseModelRecord(
        name=model_name(item.name),
        file=file,
        image_shape=tuple(result["image_shape"]),
        num_classes=result["num_classes"],
        params=settings | item.params,
        tags={"drive.sweep": sweep, "drive.trial_key": item.key, "drive.model_sha256": result["model_sha256"]},
        network=network.decode(),
    )
