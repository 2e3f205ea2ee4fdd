"""Trials and sweeps of custom code compute the same as those of the built-in equivalents."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from orchestrator.storage.base import Storage
from orchestrator.storage.layout import trial_file
from orchestrator.tracking.client import TrackingTarget
from tests.support.cli import drive_sweep, status
from tests.support.custom_modules import NETS, SWEEP, custom_config, dense_weights, run_custom, sha256_of
from tests.support.mlflow_stores import Content
from tests.support.trials import DIGITS, run, tiny_config, tiny_training
from tests.trainables.export.test_mlflow_model import ACCURACIES, BLOCKED
from trainables.config.keys import trial_key
from trainables.custom.files import CustomFiles
from trainables.data.digits import DIGITS_DIGEST
from trainables.data.splits import load_data
from trainables.export.sparse_model import load_sparse_model
from trainables.records.file_names import MODEL


def test_custom_network_with_equal_weights_gives_the_same_model(folder: Path, storage: Storage) -> None:
    save_file(dense_weights(), folder / "dense.safetensors")
    result = run_custom(custom_config(initial_weights=True), storage, folder, folder / "dense.safetensors")
    assert result["model_sha256"] == run(tiny_config(), storage)["model_sha256"]
    assert result["own_digests"]["model"] == sha256_of(NETS)
    assert result["own_digests"].keys() == {"model", "initial_weights"}


def test_custom_loss_like_the_built_in_one_gives_the_same_model(folder: Path, storage: Storage) -> None:
    config = tiny_config(training=tiny_training(loss="module:mylosses.by_hand"), rewind="init")
    custom, built_in = run_custom(config, storage, folder), run(tiny_config(rewind="init"), storage)
    assert custom["model_sha256"] == built_in["model_sha256"]
    for name in ("train/loss", "val/loss", "test/loss", "prune/loss"):
        assert custom["metrics"][name] == pytest.approx(built_in["metrics"][name], rel=1e-6)


@pytest.mark.parametrize("method", ["drive", "grasp"])
def test_custom_loss_is_used_in_training_scoring_and_evaluation(folder: Path, storage: Storage, method: Any) -> None:
    """Twice the loss at half the rate, without decay, is the same training."""
    training = tiny_training(weight_decay=0.0, epochs=0, lr=0.05)
    plain = run(tiny_config(method=method, training=training, warmup_epochs=0), storage)
    twice = replace(training, loss="module:mylosses.doubled")
    custom = run_custom(tiny_config(method=method, training=twice, warmup_epochs=0), storage, folder)
    assert custom["metrics"]["prune/loss"] == pytest.approx(2 * plain["metrics"]["prune/loss"], rel=1e-6)
    assert custom["metrics"]["test/loss"] == pytest.approx(2 * plain["metrics"]["test/loss"], rel=1e-6)
    assert custom["model_sha256"] == plain["model_sha256"]
    trained = replace(training, epochs=2)
    plain = run(tiny_config(method="dense", training=trained, warmup_epochs=0), storage)
    halved = replace(trained, loss="module:mylosses.doubled", lr=0.025)
    custom = run_custom(tiny_config(method="dense", training=halved, warmup_epochs=0), storage, folder)
    assert custom["model_sha256"] == plain["model_sha256"]
    assert custom["metrics"]["train/loss"] == pytest.approx(2 * plain["metrics"]["train/loss"], rel=1e-6)


def test_initial_weights_are_pruned_like_a_warmup(folder: Path, storage: Storage) -> None:
    """Without sparse epochs what is left is the pruned dense network; as torch.save of a DataParallel training wrote it."""
    training = tiny_training(epochs=0)
    warmed = run(tiny_config(training=training), storage)
    dense = run(tiny_config(method="dense", training=training), storage)
    assert dense["kept_weights"] == dense["prunable_weights"]
    key = trial_key(tiny_config(method="dense", training=training), DIGITS_DIGEST)
    trained = load_sparse_model(Path(storage.root, trial_file(key, MODEL))).network.state_dict()
    weights = {f"module.{name}": value for name, value in trained.items()}
    torch.save({"epoch": 2, "state_dict": weights}, folder / "dense.pt")
    config = tiny_config(training=training, warmup_epochs=0, initial_weights=True)
    result = run_custom(config, storage, folder, folder / "dense.pt")
    assert result["model_sha256"] == warmed["model_sha256"]
    assert result["model_sha256"] != run(tiny_config(training=training, warmup_epochs=0), storage)["model_sha256"]


def test_rewinding_to_init_restores_the_initial_weights(folder: Path, storage: Storage) -> None:
    save_file({name: value + 1 for name, value in dense_weights().items()}, folder / "dense.safetensors")
    config = tiny_config(training=tiny_training(epochs=0), rewind="init", initial_weights=True)
    result = run_custom(config, storage, folder, folder / "dense.safetensors")
    assert result["kept_weights"] < result["prunable_weights"]
    (file,) = Path(storage.root).glob(f"trials/*/{MODEL}")
    model = load_sparse_model(file)
    for name, mask in model.masks.items():
        assert torch.equal(model.network.state_dict()[name], (dense_weights()[name] + 1) * mask)


def test_custom_network_weights_depend_only_on_the_seed(folder: Path) -> None:
    from trainables.models.registry import initialized_network

    config = custom_config()
    CustomFiles(modules_path=str(folder)).with_digests([config]).import_modules(config)

    def weights(seed: int) -> torch.Tensor:
        network = initialized_network(replace(config, seed=seed), (1, 8, 8), 10)
        return dict(network.named_parameters())["conv1.weight"]

    torch.manual_seed(5)
    first = weights(0)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), drawn)  # the process's own generator was left alone
    assert torch.equal(weights(0), first)
    assert not torch.equal(weights(1), first)


@pytest.mark.long
def test_sweep_of_custom_code_and_its_records_outlive_the_files(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = tmp_path / "runs"
    save_file(dense_weights(), folder / "dense.safetensors")
    (folder / "own.yaml").write_text(SWEEP)
    drive_sweep("run", "own.yaml", "--storage", storage, "--quiet")
    answer = status("own", storage)
    assert (answer["total"], answer["finished"]) == (4, 4)
    digests = {trial["name"]: trial["model_sha256"] for trial in answer["trials"]}
    assert len(set(digests.values())) == 2  # the own network is the built-in one; a pruned and a dense model
    record = json.loads((storage / "sweeps/own/trials.json").read_text())
    assert record["own_digests"]["module:mynets.wide"] == sha256_of(NETS)

    monkeypatch.chdir(tmp_path)  # resume from another folder
    lost = next(trial for trial in answer["trials"] if "mynets" in trial["name"])
    (storage / "trials" / lost["key"] / "result.json").unlink()
    drive_sweep("resume", "own", "--storage", storage, "--quiet")
    assert {trial["name"]: trial["model_sha256"] for trial in status("own", storage)["trials"]} == digests

    shutil.rmtree(folder)
    shutil.rmtree(storage / "artifacts")
    (storage / "mlflow.db").unlink()
    drive_sweep("sync", "own", "--storage", storage)
    drive_sweep("report", "own", "--storage", storage)
    assert status("own", storage)["finished"] == 4

    uri = f"sqlite:///{storage}/mlflow.db"
    content = Content(TrackingTarget(uri=uri, experiment="drive-sweep", artifact_root=str(storage / "artifacts")))
    model = next(model for model in content.models if model.tags["drive.trial_key"] == lost["key"])
    test = load_data(replace(tiny_config().dataset, limit=100), DIGITS, "cpu").test
    np.save(tmp_path / "images.npy", (test.images.float() / 255).numpy())
    np.save(tmp_path / "labels.npy", test.labels.numpy())
    command = [sys.executable, "-I", "-c", BLOCKED + ACCURACIES, str(tmp_path), uri, model.model_id]
    environment = os.environ | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "MLFLOW_LOGGING_LEVEL": "ERROR"}
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {model.model_id: lost["metrics"]["test/accuracy"]}
