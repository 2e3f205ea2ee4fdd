"""A user's own network, data set, loss and weights: what they do to keys, that they compute, what wrong ones are told."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from orchestrator.errors import UserError
from orchestrator.planning.plan import Plan, make_plan
from orchestrator.spec.grid import expand, trial_names
from orchestrator.spec.loader import load_spec, resolved, spec_from_resolved
from orchestrator.storage.base import Storage
from orchestrator.storage.factory import open_storage
from orchestrator.storage.layout import trial_file
from orchestrator.tracking.client import TrackingTarget
from orchestrator.tracking.records import RunSpec
from orchestrator.tracking.run_sync import RunSync
from tests.support.cli import drive_sweep, status
from tests.support.custom_modules import DATA, LOSSES, NETS, own_config, own_dataset, run_own, sha256_of, write_modules
from tests.support.mlflow_stores import Content, new_target
from tests.support.trials import DIGITS, RUNTIME, new_storage, run, tiny_config, tiny_training
from tests.trainables.export.test_mlflow_model import ACCURACIES, BLOCKED
from trainables.config.keys import canonical, trial_key, warmup_key
from trainables.config.trial import TrialConfig
from trainables.custom import code as user_code
from trainables.custom.code import CustomFiles
from trainables.data.datasets import DIGITS_DIGEST, DatasetSource, content_digest, files, load, signature
from trainables.data.splits import load_data
from trainables.data.staging import StagedDataset
from trainables.errors import ConfigError, DataError, TrialError
from trainables.export.sparse_model import load_sparse_model
from trainables.models.registry import build_model, initialize
from trainables.records.file_names import MODEL, NETWORK
from trainables.worker.probe import Probe

SWEEP = """\
name: own
dataset: {module: mydata.load, limit: 100, augment: none}
search: {model: [convnet, {module: mynets.wide}]}
sparsity: 0.9
warmup_epochs: 1
training: {epochs: 1, batch_size: 20, lr: 0.05, loss: {module: mylosses.by_hand}}
initial_weights: ./dense.safetensors
precision: fp32
resources: {device: cpu, cpus_per_trial: 1, max_concurrent: 1}
"""
PLAIN = "name: own\ndataset: {name: digits}\nsearch: {model: [convnet, {module: mynets.wide}]}\nwarmup_epochs: 1\n"


@pytest.fixture(autouse=True)
def nothing_stays_imported(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(user_code, "_sources", {})
    yield
    for name in ("mynets", "mydata", "mylosses", "deep", "deep.mynets"):
        sys.modules.pop(name, None)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "runs"), create=True)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with all the user's files."""
    made = tmp_path / "mine"
    made.mkdir()
    monkeypatch.chdir(made)
    return write_modules(made)


def planned(text: str, storage: Storage, *options: str) -> Plan:
    Path("s.yaml").write_text(text)
    return make_plan(load_spec("s.yaml", options), storage, hash_data=True)


def keys_of(plan: Plan) -> dict[tuple[str, str], tuple[str, str]]:
    return {(trial.config.model, trial.config.method): (trial.key, trial.warmup_key) for trial in plan.trials}


def dense_weights() -> dict[str, torch.Tensor]:
    network = build_model("convnet", (1, 8, 8), 10)
    initialize(network, tiny_config().seed)
    return network.state_dict()


# Sweep files and keys


def test_all_forms_of_a_module_are_one_sweep(folder: Path) -> None:
    (folder / "a.yaml").write_text(SWEEP)
    (folder / "b.yaml").write_text(SWEEP.replace("module: mydata", "name: module:mydata"))
    spec = load_spec("a.yaml")
    assert spec == load_spec("b.yaml") == spec_from_resolved(json.loads(json.dumps(resolved(spec))))
    config = expand(spec)[1]
    assert (config.model, config.dataset.name, config.training.loss, config.initial_weights) == (
        "module:mynets.wide",
        "module:mydata.load",
        "module:mylosses.by_hand",
        True,
    )
    assert trial_names(expand(spec))[1] == "w01-i001-s0.9-r0-modelmynets.wide"


def test_only_trials_that_use_a_file_have_its_hash_in_their_keys(folder: Path, storage: Storage) -> None:
    before = keys_of(planned(PLAIN, storage))
    for (model, _), (key, warmup) in before.items():
        configs = [trial.config for trial in planned(PLAIN, storage).trials if trial.key == key]
        plain = (trial_key(configs[0], DIGITS_DIGEST), warmup_key(configs[0], DIGITS_DIGEST))
        assert ((key, warmup) == plain) == (model == "convnet")
    (folder / "mynets.py").write_text(NETS + "\n")
    after = keys_of(planned(PLAIN, storage))
    for place, (key, warmup) in before.items():
        assert (after[place][0] == key, after[place][1] == warmup) == ((place[0] == "convnet",) * 2)


def test_keys_change_with_each_file_and_not_with_its_place(folder: Path, tmp_path: Path, storage: Storage) -> None:
    save_file(dense_weights(), folder / "dense.safetensors")
    before = keys_of(planned(SWEEP, storage))
    elsewhere = write_modules(tmp_path / "runs")
    shutil.copy(folder / "dense.safetensors", elsewhere / "moved")
    (elsewhere / "mynets.py").touch()
    moved = keys_of(planned(SWEEP, storage, f"modules_path={elsewhere}", f"initial_weights={elsewhere / 'moved'}"))
    assert moved == before
    for name, text in (("mynets", NETS), ("mydata", DATA), ("mylosses", LOSSES)):
        write_modules(folder, **{name: text + "# changed\n"})
        changed = keys_of(planned(SWEEP, storage))
        same = {place for place in before if changed[place][0] == before[place][0]}
        assert same == ({place for place in before if place[0] == "convnet"} if name == "mynets" else set())
        write_modules(folder)
    save_file({"other": torch.zeros(1)}, folder / "dense.safetensors")
    assert not set(keys_of(planned(SWEEP, storage)).values()) & set(before.values())


def test_files_below_the_root_of_an_own_data_set_are_part_of_its_keys(folder: Path, storage: Storage) -> None:
    (folder / "images" / "a").mkdir(parents=True)
    (folder / "images" / "a" / "x.gz").write_bytes(b"not packed")
    text = PLAIN.replace("name: digits", "module: mydata.load, root: ./images")
    before = planned(text, storage).data_digest
    shutil.move(folder / "images", folder / "others")
    assert planned(text.replace("./images", "./others"), storage).data_digest == before
    (folder / "others" / "a" / "x.gz").write_bytes(b"not packe!")
    os.utime(folder / "others" / "a" / "x.gz", (1, 1))
    assert planned(text.replace("./images", "./others"), storage).data_digest != before


def test_a_root_that_holds_the_storage_or_a_link_to_nothing_is_refused(folder: Path, storage: Storage) -> None:
    text = PLAIN.replace("name: digits", "module: mydata.load, root: ..")
    with pytest.raises(UserError, match=r"dataset.root: '\.\.' holds the storage .*runs, so its content would change"):
        planned(text, storage)
    (folder / "images").mkdir()
    (folder / "images" / "x.png").symlink_to("nowhere.png")
    with pytest.raises(UserError, match=r"images/x.png' must be a file that can be read; it may be a link to nothing"):
        planned(text.replace("..", "./images"), storage)


def test_a_plan_imports_no_module_of_the_user(folder: Path, storage: Storage) -> None:
    write_modules(folder, mynets="raise RuntimeError\n", mylosses="raise RuntimeError\n")
    save_file(dense_weights(), folder / "dense.safetensors")
    assert all(trial.key for trial in planned(SWEEP, storage).trials)
    assert not {"mynets", "mydata", "mylosses"} & set(sys.modules)


def test_a_missing_module_is_told_by_plan_and_refused_by_run(folder: Path, storage: Storage) -> None:
    (folder / "mynets.py").unlink()
    (folder / "s.yaml").write_text(PLAIN)
    plan = make_plan(load_spec("s.yaml"), storage)
    assert plan.data_digest is None
    told = f"model: module:mynets.wide must be a function of a Python file in {folder} or in an installed package, got no such"
    assert told in plan.data_problem
    with pytest.raises(UserError) as error:
        planned(PLAIN, storage)
    assert str(error.value) == plan.data_problem


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("mynets.wide", "mynets"), "search.model[1] must be one of convnet, "),
        (("mynets.wide", "my nets.wide"), "or {module: FILE.FUNCTION}, got {'module': 'my nets.wide'}"),
        (("model: [convnet, {module", "model: [convnet, {modul"), "search.model[1] must be one of"),
        (("warmup_epochs: 1", "width: 2"), "width must be 1 for this model, got"),
        (("name: digits", "module: mydata.load, download: true"), "must be false for module:mydata.load"),
        (("name: digits", "module: mydata.load, image_size: 8"), "must not be given for module:mydata.load"),
        (("name: digits", "module: 3"), "dataset.name must be one of digits"),
        (
            ("warmup_epochs: 1", "training: {label_smoothing: 0.1, loss: {module: mylosses.doubled}}"),
            "s.yaml:4: training.label_smoothing must be 0 with a loss of your own, got training.label_smoothing 0.1",
        ),
        (("model: [", "initial_weights: [a, b], model: ["), "must be one value for the whole sweep, got ['a', 'b']; write one"),
    ],
)
def test_a_wrong_line_about_own_code_is_told(folder: Path, storage: Storage, change: tuple[str, str], told: str) -> None:
    with pytest.raises(UserError) as error:
        planned(PLAIN.replace(*change), storage)
    assert told in str(error.value)


# Trials


def test_an_own_network_with_the_weights_of_a_built_in_one_is_the_same_trial(folder: Path, storage: Storage) -> None:
    save_file(dense_weights(), folder / "dense.safetensors")
    result = run_own(own_config(initial_weights=True), storage, folder, folder / "dense.safetensors")
    assert result["model_sha256"] == run(tiny_config(), storage)["model_sha256"]
    assert result["own_digests"]["model"] == sha256_of(NETS)
    assert result["own_digests"].keys() == {"model", "initial_weights"}


def test_a_loss_written_by_hand_gives_the_same_model_as_the_built_in_one(folder: Path, storage: Storage) -> None:
    config = tiny_config(training=tiny_training(loss="module:mylosses.by_hand"), rewind="init")
    own, built_in = run_own(config, storage, folder), run(tiny_config(rewind="init"), storage)
    assert own["model_sha256"] == built_in["model_sha256"]
    for name in ("train/loss", "val/loss", "test/loss", "prune/loss"):
        assert own["metrics"][name] == pytest.approx(built_in["metrics"][name], rel=1e-6)


@pytest.mark.parametrize("method", ["drive", "grasp"])
def test_an_own_loss_trains_scores_and_evaluates(folder: Path, storage: Storage, method: Any) -> None:
    """Twice the loss at half the rate, without decay, is the same training."""
    training = tiny_training(weight_decay=0.0, epochs=0, lr=0.05)
    plain = run(tiny_config(method=method, training=training, warmup_epochs=0), storage)
    twice = replace(training, loss="module:mylosses.doubled")
    own = run_own(tiny_config(method=method, training=twice, warmup_epochs=0), storage, folder)
    assert own["metrics"]["prune/loss"] == pytest.approx(2 * plain["metrics"]["prune/loss"], rel=1e-6)
    assert own["metrics"]["test/loss"] == pytest.approx(2 * plain["metrics"]["test/loss"], rel=1e-6)
    assert own["model_sha256"] == plain["model_sha256"]
    trained = replace(training, epochs=2)
    plain = run(tiny_config(method="dense", training=trained, warmup_epochs=0), storage)
    halved = replace(trained, loss="module:mylosses.doubled", lr=0.025)
    own = run_own(tiny_config(method="dense", training=halved, warmup_epochs=0), storage, folder)
    assert own["model_sha256"] == plain["model_sha256"]
    assert own["metrics"]["train/loss"] == pytest.approx(2 * plain["metrics"]["train/loss"], rel=1e-6)


def test_own_data_equal_to_built_in_ones_give_the_same_model(folder: Path, storage: Storage) -> None:
    result = run_own(tiny_config(dataset=own_dataset()), storage, folder)
    assert result["model_sha256"] == run(tiny_config(), storage)["model_sha256"]
    assert result["own_digests"] == {"dataset": sha256_of(DATA)}


def test_weights_trained_elsewhere_are_pruned_like_a_warm_up(folder: Path, storage: Storage) -> None:
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
    result = run_own(config, storage, folder, folder / "dense.pt")
    assert result["model_sha256"] == warmed["model_sha256"]
    assert result["model_sha256"] != run(tiny_config(training=training, warmup_epochs=0), storage)["model_sha256"]


def test_rewinding_to_the_beginning_takes_the_own_weights(folder: Path, storage: Storage) -> None:
    save_file({name: value + 1 for name, value in dense_weights().items()}, folder / "dense.safetensors")
    config = tiny_config(training=tiny_training(epochs=0), rewind="init", initial_weights=True)
    result = run_own(config, storage, folder, folder / "dense.safetensors")
    assert result["kept_weights"] < result["prunable_weights"]
    (file,) = Path(storage.root).glob(f"trials/*/{MODEL}")
    model = load_sparse_model(file)
    for name, mask in model.masks.items():
        assert torch.equal(model.network.state_dict()[name], (dense_weights()[name] + 1) * mask)


def test_the_weights_of_an_own_network_depend_on_the_seed_alone(folder: Path) -> None:
    from trainables.models.registry import initialized_network

    config = own_config()
    CustomFiles(modules_path=str(folder)).digested([config]).activate(config)

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


# Workers


def test_a_reused_worker_runs_the_file_that_was_planned_with(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Same size, same second: Python's own import would take the compiled older version."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    os.utime(folder / "mynets.py", (1e9, 1e9))
    config = own_config()
    planned_first = CustomFiles(modules_path=str(folder)).digested([config])
    planned_first.activate(config)
    assert user_code.load_function(config.model)((1, 8, 8), 10).conv1.out_channels == 16
    write_modules(folder, mynets=NETS.replace("width=16", "width=24"))
    os.utime(folder / "mynets.py", (1e9, 1e9))
    planned_first.activate(config)  # imported before it was changed
    planned_now = CustomFiles(modules_path=str(folder)).digested([config])
    planned_now.activate(config)
    assert user_code.load_function(config.model)((1, 8, 8), 10).conv1.out_channels == 24
    with pytest.raises(ConfigError, match=rf"model: {folder}/mynets\.py must be the file that the sweep was planned with"):
        planned_first.activate(config)


def test_a_module_in_a_package_is_found_and_may_import_its_neighbours(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "__init__.py").write_text("")
    (folder / "deep" / "parts.py").write_text("WIDTH = 24\n")
    (folder / "deep" / "mynets.py").write_text("from . import parts\n" + NETS.replace("width=16", "width=parts.WIDTH"))
    config = own_config(model="module:deep.mynets.wide")
    CustomFiles(modules_path=str(folder)).digested([config]).activate(config)
    assert user_code.load_function(config.model)((1, 8, 8), 10).conv1.out_channels == 24


def test_a_module_of_an_installed_package_is_found(folder: Path) -> None:
    config = own_config(model="module:torchvision.models.vgg.vgg16")
    digest = CustomFiles(modules_path=str(folder)).digested([config]).digests[config.model]
    import torchvision.models.vgg as installed

    assert digest == sha256_of(Path(installed.__file__).read_text())


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


@pytest.mark.parametrize(("text", "told"), NO_NETWORK.items(), ids=list(NO_NETWORK.values()))
def test_a_wrong_network_is_told_before_the_warm_up(folder: Path, storage: Storage, text: str, told: str) -> None:
    write_modules(folder, mynets=text)
    assert told.format(folder=folder) in refusal(own_config(), storage, folder, ConfigError)


NO_LOSS = {
    "def by_hand(a): ...": "training.loss: module:mylosses.by_hand must take logits (B, 10) and labels (B,), got TypeError",
    "def by_hand(a, b): return a.sum(1)": "must return the mean loss as a scalar tensor with a gradient, got shape (2,)",
    "def by_hand(a, b): return a.detach().sum()": "must return the mean loss as a scalar tensor with a gradient, got tens",
}


@pytest.mark.parametrize(("text", "told"), NO_LOSS.items(), ids=list(NO_LOSS.values()))
def test_a_wrong_loss_is_told_before_the_warm_up(folder: Path, storage: Storage, text: str, told: str) -> None:
    write_modules(folder, mylosses=text)
    config = tiny_config(training=tiny_training(loss="module:mylosses.by_hand"))
    assert told in refusal(config, storage, folder, ConfigError)


IMAGES = "import numpy as np\ni, l = np.zeros((60, 1, 8, 8), np.uint8), np.arange(60) % 10\ndef load(root): return "
NO_DATA = {
    "i, l": "must return train_images, train_labels, test_images, test_labels, num_classes, got ValueError",
    "i, l, i, l, 1": "must return num_classes as an integer from 2 on, got 1",
    "i / 255, l, i, l, 10": "must return train_images as uint8 of shape (N, C, H, W), got float64 of shape (60, 1, 8, 8)",
    "i, l, i[:, 0], l, 10": "must return test_images as uint8 of shape (N, C, H, W), got uint8 of shape (60, 8, 8)",
    "i, l[:5], i, l, 10": "must return train_labels as integers of shape (60,), got int64 of shape (5,)",
    "i, l / 2, i, l, 10": "must return train_labels as integers of shape (60,), got float64",
    "i, l, i, l, 9": "must return train_labels in 0..8, got 0..9",
    "i, l, i[:, :, 1:], l, 10": "must return test images of the shape of its training images, got (1, 7, 8) and (1, 8, 8)",
    "i, [[1], [1, 2]], i, l, 10": "must return train_labels as an array, got ValueError:",
}


@pytest.mark.parametrize(("returned", "told"), NO_DATA.items(), ids=list(NO_DATA.values()))
def test_wrong_data_are_told(folder: Path, storage: Storage, returned: str, told: str) -> None:
    write_modules(folder, mydata=IMAGES + returned)
    assert f"dataset: module:mydata.load {told}" in refusal(tiny_config(dataset=own_dataset()), storage, folder, DataError)


def test_data_of_a_file_that_has_changed_are_not_kept_for_the_new_one(folder: Path) -> None:
    config = tiny_config(dataset=own_dataset())
    CustomFiles(modules_path=str(folder)).digested([config]).activate(config)
    write_modules(folder, mydata=DATA + "# changed\n")
    with pytest.raises(DataError, match=r"dataset: the file of module:mydata\.load must stay as it is while a sweep runs"):
        load(DatasetSource(name="module:mydata.load", modules_path=str(folder)))


def test_a_probe_measures_own_code(folder: Path) -> None:
    config = own_config(training=tiny_training(loss="module:mylosses.by_hand"), dataset=own_dataset())
    own = CustomFiles(modules_path=str(folder)).digested([config])
    source = DatasetSource(name="module:mydata.load", modules_path=str(folder))
    probe = Probe(canonical(config), StagedDataset(source=source), RUNTIME, own)
    assert probe.ready() > 0
    assert type(probe.model).__module__ == "mynets"


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("executed"),))


def test_wrong_weights_are_told_and_never_executed(folder: Path, storage: Storage) -> None:
    weights, file, config = dense_weights(), folder / "dense", tiny_config(initial_weights=True)
    first, *others = weights

    def told(held: Any) -> str:
        save_file(held, file) if isinstance(held, dict) and first in held else torch.save(held, file)
        return refusal(config, storage, folder, ConfigError, file)

    message = told({first: weights[first].flatten()} | {"extra": torch.zeros(1)} | {name: weights[name] for name in others[1:]})
    assert f"must hold the {len(weights)} tensors of the network, got {str(file)!r} with 1 missing ({others[0]});" in message
    assert "1 unexpected (extra); 1 of another shape (conv1.weight (144,) for (16, 1, 3, 3))" in message
    assert "must be a state dict of tensors" in told([1, 2])
    assert "must be safetensors or a state dict saved by torch.save" in told({"state_dict": Evil()})
    assert not Path("executed").exists()
    file.write_bytes(b"something else")
    assert "must be safetensors or a state dict" in refusal(config, storage, folder, ConfigError, file)
    with pytest.raises(ConfigError, match=r"initial_weights must be a file that can be read, got .*nowhere'"):
        run_own(config, storage, folder, folder / "nowhere")


def test_changed_weights_are_not_those_that_were_planned_with(folder: Path) -> None:
    from trainables.models.pretrained import load_initial_weights

    save_file(dense_weights(), folder / "dense")
    own = CustomFiles(initial_weights=str(folder / "dense")).digested([tiny_config(initial_weights=True)])
    network = build_model("convnet", (1, 8, 8), 10)
    load_initial_weights(network, own)
    save_file({name: value + 1 for name, value in dense_weights().items()}, folder / "dense")
    with pytest.raises(ConfigError, match="initial_weights must be the file that the sweep was planned with"):
        load_initial_weights(network, own)


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("module:random.wide", "must not have the name of another module, got 'random'; rename the file"),
        ("module:numpy.wide", "must not have the name of another module, got 'numpy'; rename the file"),
        ("module:deep.wide", "got a package; name the file in it: deep.FILE.wide"),
        ("module:torchvision.models.vgg16", "got a package; name the file in it: torchvision.models.FILE.vgg16"),
        ("module:nowhere.wide", "got no such file; correct it, or set modules_path to its folder"),
    ],
)
def test_a_name_that_is_no_file_is_told(folder: Path, storage: Storage, reference: str, told: str) -> None:
    (folder / "deep").mkdir()
    (folder / "numpy.py").write_text(NETS)
    assert f"model: {told}".removeprefix("model: ") in refusal(own_config(model=reference), storage, folder, ConfigError)


def refusal(config: TrialConfig, storage: Storage, folder: Path, kind: type[TrialError], weights: Path | None = None) -> str:
    """What a trial is refused with, before it trained anything."""
    with pytest.raises(kind) as error:
        run_own(config, storage, folder, weights)
    assert not list(Path(storage.root).glob("warmups/*/*"))
    return str(error.value)


# Saved models


def test_a_saved_model_needs_its_module_and_says_which(folder: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run_own(own_config(), storage, folder)
    file = Path(storage.root, trial_file(result["key"], MODEL))
    assert storage.read(trial_file(result["key"], NETWORK)) == NETS.encode()
    images = load_data(tiny_config().dataset, DIGITS, "cpu").test.images.float() / 255
    scores = load_sparse_model(file).predict(images)
    script = (
        "import torch; from trainables.export.sparse_model import load_sparse_model; "
        f"print(load_sparse_model({str(file)!r}).predict(torch.zeros(1, 1, 8, 8)).shape)"
    )
    environment = os.environ | {"PYTHONPATH": str(folder)}
    there = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert there.stdout == "torch.Size([1, 10])\n"
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(folder)])
    del sys.modules["mynets"]
    monkeypatch.setattr(user_code, "_sources", {})
    with pytest.raises(ValueError, match=rf"module:mynets\.wide .*{sha256_of(NETS)}.* module 'mynets' cannot be imported"):
        load_sparse_model(file)
    changed = write_modules(Path(storage.root, "trials"), mynets=NETS + "# changed\n")
    monkeypatch.syspath_prepend(str(changed))
    with pytest.warns(UserWarning, match="is not the file that the model was trained with"):
        assert torch.equal(load_sparse_model(file).predict(images), scores)


def test_logged_models_of_two_versions_of_a_file_load_in_one_process(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import pyfunc

    storage, target = new_storage(tmp_path / "storage"), new_target(tmp_path)
    mirror = RunSync(target, storage, "own")
    mirror.open_sweep("", {}, {})
    images = load_data(tiny_config().dataset, DIGITS, "cpu").test.images.float() / 255
    expected = []
    for text in (NETS, NETS.replace("return self.head(", "return 3 * self.head(")):
        write_modules(folder, mynets=text)
        key = run_own(own_config(), storage, folder)["key"]
        mirror.finish(RunSpec(key=key, name="wide", role="trial", params={}, tags={}))
        expected.append((key, load_sparse_model(Path(storage.root, trial_file(key, MODEL))).predict(images).numpy()))
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(folder)])
    del sys.modules["mynets"]
    models = {model.tags["drive.trial_key"]: model.artifact_location for model in Content(target).models}
    for key, scores in expected:
        assert np.array_equal(pyfunc.load_model(models[key]).predict(images.numpy()), scores)


# A whole sweep


def test_a_sweep_of_own_everything_runs_and_its_records_outlive_the_files(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = tmp_path / "runs"
    save_file(dense_weights(), folder / "dense.safetensors")
    (folder / "own.yaml").write_text(SWEEP)
    drive_sweep("run", "own.yaml", "--storage", storage, "--quiet")
    told = status("own", storage)
    assert (told["total"], told["finished"]) == (4, 4)
    digests = {trial["name"]: trial["model_sha256"] for trial in told["trials"]}
    assert len(set(digests.values())) == 2  # the own network is the built-in one; a pruned and a dense model
    record = json.loads((storage / "sweeps/own/trials.json").read_text())
    assert record["own_digests"]["module:mynets.wide"] == sha256_of(NETS)

    monkeypatch.chdir(tmp_path)  # resume from another folder
    lost = next(trial for trial in told["trials"] if "mynets" in trial["name"])
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


@pytest.mark.parametrize("target", [".", "..", "sub/back"])
def test_loops_of_links_below_an_own_root_are_refused_with_the_path(folder: Path, tmp_path: Path, target: str) -> None:
    root = tmp_path / "images"
    (root / "sub" / "deep").mkdir(parents=True)
    if target == "sub/back":  # two links that hold each other
        other = tmp_path / "other"
        other.mkdir()
        (other / "there").symlink_to(root)
        (root / "loop").symlink_to(other)
        loop = root / "loop" / "there"
    else:
        loop = root / "sub" / "deep" / "loop"
        loop.symlink_to(target)
    with pytest.raises(DataError, match=rf"dataset\.root: '{loop}' must not be a link to a folder that holds it; remove"):
        content_digest(DatasetSource(name="module:mydata.load", root=str(root), modules_path=str(folder)))


def test_linked_folders_and_names_that_are_no_utf8_below_an_own_root_are_part_of_its_digest(
    folder: Path, tmp_path: Path
) -> None:
    root, elsewhere = tmp_path / "images", tmp_path / "elsewhere"
    for path in (root, elsewhere):
        path.mkdir()
    (root / "first").symlink_to(elsewhere)
    (root / "second").symlink_to(elsewhere)  # the same folder twice is no loop
    Path(os.fsdecode(os.fsencode(elsewhere) + b"/caf\xe9.npy")).write_bytes(b"1")
    source = DatasetSource(name="module:mydata.load", root=str(root), modules_path=str(folder))
    assert [name for name, _ in files(source)] == ["module", "root/first/caf\udce9.npy", "root/second/caf\udce9.npy"]
    before = content_digest(source), signature(source)
    Path(os.fsdecode(os.fsencode(elsewhere) + b"/caf\xe9.npy")).write_bytes(b"2")
    assert content_digest(source) != before[0]
