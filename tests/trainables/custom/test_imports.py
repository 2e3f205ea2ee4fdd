"""Imports of custom modules: always the planned version, checked before the warm-up, and bundled with saved models."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from orchestrator.storage.base import Storage
from orchestrator.storage.layout import trial_file
from orchestrator.tracking.records import RunSpec
from orchestrator.tracking.run_sync import RunSync
from tests.support.custom_modules import (
    LOSSES,
    NETS,
    custom_config,
    custom_dataset,
    rejection,
    run_custom,
    sha256_of,
    write_modules,
)
from tests.support.mlflow_stores import Content, new_target
from tests.support.trials import DIGITS, RUNTIME, new_storage, tiny_config, tiny_training
from trainables.config.keys import canonical
from trainables.custom import imports
from trainables.custom.files import CustomFiles
from trainables.custom.imports import load_function
from trainables.data.source import DatasetSource
from trainables.data.splits import load_data
from trainables.data.staging import StagedDataset
from trainables.errors import ConfigError
from trainables.export.sparse_model import load_sparse_model
from trainables.models.losses import check_loss
from trainables.records.file_names import MODEL, NETWORK
from trainables.worker.probe import Probe


def test_reused_worker_imports_the_planned_version(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Same size, same second: Python's own import would take the compiled older version."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    os.utime(folder / "mynets.py", (1e9, 1e9))
    config = custom_config()
    planned_first = CustomFiles(modules_path=str(folder)).with_digests([config])
    planned_first.import_modules(config)
    assert load_function(config.model)((1, 8, 8), 10).conv1.out_channels == 16
    write_modules(folder, mynets=NETS.replace("width=16", "width=24"))
    os.utime(folder / "mynets.py", (1e9, 1e9))
    planned_first.import_modules(config)  # imported before it was changed
    planned_now = CustomFiles(modules_path=str(folder)).with_digests([config])
    planned_now.import_modules(config)
    assert load_function(config.model)((1, 8, 8), 10).conv1.out_channels == 24
    with pytest.raises(ConfigError, match=rf"model: {folder}/mynets\.py must be the file that the sweep was planned with"):
        planned_first.import_modules(config)


def test_module_in_a_package_may_import_its_siblings(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "__init__.py").write_text("")
    (folder / "deep" / "parts.py").write_text("WIDTH = 24\n")
    (folder / "deep" / "mynets.py").write_text("from . import parts\n" + NETS.replace("width=16", "width=parts.WIDTH"))
    config = custom_config(model="module:deep.mynets.wide")
    CustomFiles(modules_path=str(folder)).with_digests([config]).import_modules(config)
    assert load_function(config.model)((1, 8, 8), 10).conv1.out_channels == 24


NO_NETWORK = {
    "def narrow(a, b): ...": "mynets.wide must be a function, got none of that name in {folder}/mynets.py; there are narrow",
    "wide = ": "{folder}/mynets.py must be importable, got SyntaxError",
    "import nowhere": "must be importable, got ModuleNotFoundError: No module named 'nowhere'",
    "def wide(a): ...": "must make a network of image_shape (1, 8, 8) and num_classes 10, got TypeError",
    "from torch.nn import *\ndef wide(a, b): return Linear(64, b)": "must hold its layers as modules of its own, such as in "
    "nn.Sequential, got a network that is itself a Linear layer",
    "def wide(a, b): ...": "must return a torch.nn.Module, got None",
    "from torch.nn import *\ndef wide(a, b): return Sequential(Linear(3, 10))": "must take images of shape (B, 1, 8, 8), got "
    "RuntimeError",
    "from torch import nn\ndef wide(a, b): return nn.Sequential(nn.Flatten(), nn.Linear(64, 9))": "must give class scores of "
    "shape (2, 10) for two images, got (2, 9)",
    "from torch import nn\ndef wide(a, b): return nn.Sequential(nn.AdaptiveMaxPool2d((1, 10)), nn.Flatten())": "must have a "
    "layer to prune",
    "from torch.nn import *\nl = Linear(64, 64)\ndef wide(a, b): return Sequential(Flatten(), l, l, Linear(64, b))": "must "
    "have a state dict of tensors that share no memory",
}


@pytest.mark.parametrize(("text", "message"), NO_NETWORK.items(), ids=list(NO_NETWORK.values()))
def test_invalid_network_is_rejected_before_the_warmup(folder: Path, storage: Storage, text: str, message: str) -> None:
    write_modules(folder, mynets=text)
    assert message.format(folder=folder) in rejection(custom_config(), storage, folder, ConfigError)


NO_LOSS = {
    "def by_hand(a): ...": "training.loss: module:mylosses.by_hand must take logits (B, 10) and labels (B,), got TypeError",
    "def by_hand(a, b): return a.sum(1)": "must return the mean loss as a scalar tensor with a gradient, got shape (2,)",
    "def by_hand(a, b): return a.detach().sum()": "must return the mean loss as a scalar tensor with a gradient, got tens",
}


@pytest.mark.parametrize(("text", "message"), NO_LOSS.items(), ids=list(NO_LOSS.values()))
def test_invalid_loss_is_rejected_before_the_warmup(folder: Path, storage: Storage, text: str, message: str) -> None:
    write_modules(folder, mylosses=text)
    config = tiny_config(training=tiny_training(loss="module:mylosses.by_hand"))
    assert message in rejection(config, storage, folder, ConfigError)


BY_CLASS = """
from torch import arange
from torch.nn.functional import cross_entropy

def by_hand(logits, labels):
    return cross_entropy(logits, labels, weight=arange(1.0, 11.0))
"""


@pytest.mark.parametrize(("text", "workers", "is_refused"), [(BY_CLASS, 1, False), (BY_CLASS, 2, True), (LOSSES, 2, False)])
def test_loss_that_is_no_mean_over_images_is_refused_for_several_workers(
    folder: Path, text: str, workers: int, is_refused: bool
) -> None:
    """One that divides by the weights of a batch's classes cannot be added up from parts of the batch."""
    write_modules(folder, mylosses=text)
    config = tiny_config(training=tiny_training(loss="module:mylosses.by_hand"))
    CustomFiles(modules_path=str(folder)).with_digests([config]).import_modules(config)
    message = (
        r"mylosses.by_hand must be a mean over images for a trial of several workers, got 2\.\d+ for 7 images and 2\.\d+ for"
    )
    with pytest.raises(ConfigError, match=message) if is_refused else nullcontext():
        check_loss(config.training.loss, 10, torch.device("cpu"), workers)


def test_probe_measures_custom_code(folder: Path) -> None:
    config = custom_config(training=tiny_training(loss="module:mylosses.by_hand"), dataset=custom_dataset())
    files = CustomFiles(modules_path=str(folder)).with_digests([config])
    source = DatasetSource(name="module:mydata.load", modules_path=str(folder))
    probe = Probe(canonical(config), StagedDataset(source=source), RUNTIME, files)
    assert probe.measure_peak_memory() > 0
    assert type(probe.model).__module__ == "mynets"


def test_saved_model_names_the_module_it_needs(folder: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run_custom(custom_config(), storage, folder)
    file = Path(storage.root, trial_file(result["key"], MODEL))
    assert storage.read(trial_file(result["key"], NETWORK)) == NETS.encode()
    images = load_data(tiny_config().dataset, DIGITS, "cpu").test.images.float() / 255
    scores = load_sparse_model(file).predict(images)
    script = (
        "import torch; from trainables import load_sparse_model; "
        f"print(load_sparse_model({str(file)!r}).predict(torch.zeros(1, 1, 8, 8)).shape)"
    )
    environment = os.environ | {"PYTHONPATH": str(folder)}
    there = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert there.stdout == "torch.Size([1, 10])\n"
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(folder)])
    del sys.modules["mynets"]
    monkeypatch.setattr(imports, "_sources", {})
    with pytest.raises(ValueError, match=rf"module:mynets\.wide .*{sha256_of(NETS)}.* module 'mynets' cannot be imported"):
        load_sparse_model(file)
    changed = write_modules(Path(storage.root, "trials"), mynets=NETS + "# changed\n")
    monkeypatch.syspath_prepend(str(changed))
    with pytest.warns(UserWarning, match="is not the file that the model was trained with"):
        assert torch.equal(load_sparse_model(file).predict(images), scores)


def test_logged_models_of_two_versions_load_in_one_process(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import pyfunc

    storage, target = new_storage(tmp_path / "storage"), new_target(tmp_path)
    sync = RunSync(target, storage, "own")
    sync.open_sweep("", {}, {})
    images = load_data(tiny_config().dataset, DIGITS, "cpu").test.images.float() / 255
    expected = []
    for text in (NETS, NETS.replace("return self.head(", "return 3 * self.head(")):
        write_modules(folder, mynets=text)
        key = run_custom(custom_config(), storage, folder)["key"]
        sync.finish(RunSpec(key=key, name="wide", role="trial", params={}, tags={}))
        expected.append((key, load_sparse_model(Path(storage.root, trial_file(key, MODEL))).predict(images).numpy()))
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(folder)])
    del sys.modules["mynets"]
    models = {model.tags["drive.trial_key"]: model.artifact_location for model in Content(target).models}
    for key, scores in expected:
        assert np.array_equal(pyfunc.load_model(models[key]).predict(images.numpy()), scores)
