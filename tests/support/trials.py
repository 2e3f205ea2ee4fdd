"""Tiny trials on digits in a temporary storage, run by the real phases on the real storage layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from orchestrator.storage.base import Storage
from orchestrator.storage.layout import TrialFolder, WarmupFolder, stop_files, trial_file
from orchestrator.storage.local import LocalStorage
from tests.support.small_trials import small_trial
from trainables.config.keys import trial_key, warmup_key
from trainables.config.trial import DatasetConfig, TrainingConfig, TrialConfig
from trainables.data.digits import DIGITS_DIGEST, DIGITS_FACTS
from trainables.data.normalization import Normalization
from trainables.data.source import DatasetSource
from trainables.data.splits import Data, load_data
from trainables.data.staging import StagedDataset
from trainables.errors import StopRequestedError
from trainables.models.prunable import prunable_weights
from trainables.pruning.masks import full_masks
from trainables.pruning.selection import Selection
from trainables.pruning.sparse_trainers import SparseTraining
from trainables.records.file_names import METRICS, MODEL, RESULT
from trainables.records.metrics import points_from_lines
from trainables.records.result_record import encode_result
from trainables.runtime.device import Runtime
from trainables.training.optimizer import make_optimizer
from trainables.trial.checkpoint import TrialState
from trainables.trial.context import TrialContext
from trainables.trial.runner import run_trial
from trainables.trial.selections import selection_of
from trainables.trial.warmup import WarmupTrainer
from trainables.worker.stage import Folders, SweepSettings

DIGITS = DatasetSource(name="digits")
RUNTIME = Runtime()
SWEEP = "tiny"

Points = dict[tuple[str, int], float | None]


def tiny_config(**changes: Any) -> TrialConfig:
    """2 warm-up epochs, 2 rounds to 90 %, 2 sparse epochs of 2 batches each; well below half a second.

    Methods that score channels have granularity channel.
    """
    base = small_trial(DatasetConfig(name="digits", limit=50, validation=0.2))
    config = replace(base, **changes)
    if config.pruning.scores_channels:
        config = replace(config, granularity="channel")
    if config.compensates and "dataset" not in changes:  # which needs more images than a layer has inputs
        config = replace(config, dataset=replace(base.dataset, limit=200))
    return config


def selection_for(config: TrialConfig, model: nn.Module) -> Selection:
    """The selection of a trial on digits with this network."""
    return selection_of(config, model, DIGITS_FACTS.image_shape)


def sparse_training(config: TrialConfig, model: nn.Module, *, steps: int, **changes: Any) -> SparseTraining:
    """The sparse training of a trial on digits with this network, which is still dense."""
    selection = selection_for(config, model)
    values: dict[str, Any] = {
        "model": model,
        "optimizer": make_optimizer(model, config.training),
        "masks": selection.with_other_tensors(full_masks(prunable_weights(model)), model),
        "config": config,
        "steps": steps,
        "selection": selection,
    }
    return SparseTraining(**values | changes)


def tiny_settings(folders: Folders, **changes: Any) -> SweepSettings:
    """What the stages of a sweep of tiny trials share; they write whenever they may."""
    base = SweepSettings(
        folders=folders,
        data=StagedDataset(source=DIGITS),
        runtime=RUNTIME,
        share_warmups=False,
        checkpoint_seconds=0.0,
        metrics_seconds=0.0,
        provenance={"data_digest": DIGITS_DIGEST, "revision": "abc1234", "sweep": SWEEP},
        progress_seconds=1.0,
    )
    return replace(base, **changes)


def tiny_training(**changes: Any) -> TrainingConfig:
    return replace(tiny_config().training, **changes)


class Float64(Normalization):
    """The normalisation of a data set, handed on in float64 so that networks compute in it."""

    def apply(self, images_BCHW: Tensor) -> Tensor:
        return Normalization.apply(self, images_BCHW).double()


def in_float64(data: Data) -> Data:
    """The data for a network in float64, whose results agree between processors and memory orders to the last digits."""
    return replace(data, normalization=Float64(mean=data.normalization.mean, std=data.normalization.std))


def new_storage(root: Path) -> Storage:
    return LocalStorage(str(root))


def trial_folder(config: TrialConfig, storage: Storage, attempt: int = 1) -> TrialFolder:
    return TrialFolder(storage, trial_key(config, DIGITS_DIGEST), attempt, SWEEP, owner="tests")


def warmup_folder(config: TrialConfig, storage: Storage, runtime: Runtime = RUNTIME) -> WarmupFolder:
    return WarmupFolder(storage, f"warmups/{warmup_key(config, DIGITS_DIGEST)}", runtime.fingerprint_id())


def warmup_trainer(
    config: TrialConfig,
    storage: Storage,
    snapshot_seconds: float = 60.0,
    after_epoch: Callable[[TrialState], None] = lambda state: None,
) -> WarmupTrainer:
    """What trains the trial's shared warm-up."""
    return WarmupTrainer(
        config=config,
        data=load_data(config.dataset, DIGITS, "cpu"),
        runtime=RUNTIME,
        snapshots=warmup_folder(config, storage),
        snapshot_seconds=snapshot_seconds,
        after_epoch=after_epoch,
    )


def trial_context(config: TrialConfig, storage: Storage, attempt: int = 1, **settings: Any) -> TrialContext:
    """Every boundary publishes points and a checkpoint, unless `settings` say otherwise."""
    defaults: dict[str, Any] = {
        "source": DIGITS,
        "runtime": RUNTIME,
        "files": trial_folder(config, storage, attempt),
        "snapshots": warmup_folder(config, storage),
        "checkpoint_seconds": 0.0,
        "metrics_seconds": 0.0,
    }
    return TrialContext(**defaults | settings)


def run(config: TrialConfig, storage: Storage, attempt: int = 1, **settings: Any) -> dict[str, Any]:
    """One attempt at a trial, begun and run as a worker does it: the content of its result."""
    trial_folder(config, storage, attempt).claim_attempt()
    return run_trial(config, trial_context(config, storage, attempt, **settings))


def write_result(storage: Storage, key: str, result: dict[str, Any]) -> None:
    """Writes a result.json that goes with the files in the trial's folder."""
    metrics, model = (storage.read(trial_file(key, name)) or b"" for name in (METRICS, MODEL))
    storage.write(trial_file(key, RESULT), encode_result(key, result, metrics, model)[1])


def metric_lines(config: TrialConfig, storage: Storage) -> list[dict[str, Any]]:
    """The points of the trial's metrics.jsonl."""
    content = trial_folder(config, storage).read("metrics.jsonl")
    return [point.to_json() for point in points_from_lines(content or b"")]


def metric_points(config: TrialConfig, storage: Storage) -> dict[tuple[str, int], float | None]:
    """Value by (key, step), of measured seconds only that they are there; fails if a (key, step) occurs twice."""
    points: dict[tuple[str, int], float | None] = {}
    for line in metric_lines(config, storage):
        place = line["key"], line["step"]
        assert place not in points, f"{place} is there twice"
        points[place] = None if line["key"].startswith("cost/") else line["value"]
    return points


def all_files(storage: Storage) -> dict[str, bytes]:
    """Path below the storage -> content, partial files included."""
    root = Path(storage.root)
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def undisturbed(config: TrialConfig, root: Path) -> tuple[str, Points]:
    storage = new_storage(root)
    return run(config, storage)["model_sha256"], metric_points(config, storage)


def stop_at(config: TrialConfig, storage: Storage, when: Callable[[TrialState], bool], **settings: Any) -> None:
    """Runs the first attempt, asks its sweep to stop as soon as `when` holds, and takes the request back."""
    (stop, _) = stop_files(SWEEP, "")

    def ask(state: TrialState) -> None:
        if when(state):
            storage.write(stop, b"")

    with pytest.raises(StopRequestedError, match="continues from there"):
        run(config, storage, 1, on_progress=ask, **settings)
    storage.remove(stop)
