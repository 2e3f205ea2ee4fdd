"""Sweep files: every mistake with its line, key, value and way out; what a right one expands to."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import EXIT_USER, UserError
from orchestrator.spec.grid import expand, trial_names
from orchestrator.spec.loader import json_schema, load_spec, resolved, spec_from_resolved
from orchestrator.spec.presets import preset_names, preset_text, template
from orchestrator.spec.schema import SEARCHABLE, TRIAL_KEYS, SweepSpec, schema_keys
from tests import ROOT
from trainables.config.keys import canonical
from trainables.config.methods import METHODS
from trainables.config.trial import DatasetConfig, TrialConfig
from trainables.data.source import DatasetSource
from trainables.data.table import image_side
from trainables.models.table import NETWORKS

BASE = "name: x\ndataset: {name: digits}\nmodel: convnet\n"
MODELS = ", ".join(NETWORKS) + ", or {module: FILE.FUNCTION}"
METHOD_RULE = f"one of {', '.join(METHODS)}, {{module: FILE.FUNCTION, options: {{...}}}}"
NAME_RULE = "at most 100 letters, digits, '.', '_' and '-', beginning with a letter or digit"
NUMBERS = "must be a key that decides a trial's numbers"
ONLY_THOSE = "only those can be searched: write"


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def loaded(text: str, *options: str) -> SweepSpec:
    Path("s.yaml").write_text(text)
    return load_spec("s.yaml", options)


def refused(text: str, *options: str) -> list[str]:
    """Lines of the message that a sweep file is refused with."""
    with pytest.raises(UserError) as error:
        loaded(text, *options)
    assert error.value.exit_code == EXIT_USER
    return str(error.value).split("\n")


# What is written after BASE (lines 1 to 3) -> the whole message.
WRONG = {
    "unknown key": ("nmae: y\n", ["s.yaml:4: nmae must be a known key, got 'nmae'; did you mean 'name'?"]),
    "unknown key of a section": (
        "training:\n  epochs: 3\n  learning: 0.1\n  momentun: 0.9\n",
        [
            "s.yaml:6: training.learning must be a known key, got 'learning'; known are epochs, batch_size, lr, momentum, "
            "nesterov, weight_decay, milestones, gamma, budget, schedule, lr_warmup_epochs, label_smoothing, clip_norm, "
            "loss",
            "s.yaml:7: training.momentun must be a known key, got 'momentun'; did you mean 'training.momentum'?",
        ],
    ),
    "key of another section": ("lr: 0.1\n", ["s.yaml:4: lr must be a known key, got 'lr'; did you mean 'training.lr'?"]),
    "percentage": ("sparsity: 95\n", ["s.yaml:4: sparsity must be in [0, 1), got 95; a percentage? write 0.95"]),
    "percent sign": (
        "sparsity: 95%\n",
        ["s.yaml:4: sparsity must be a number in [0, 1), got '95%'; a percentage? write 0.95"],
    ),
    "percentage on an axis": (
        "search:\n  sparsity:\n    - 0.9\n    - 0.98\n    - 95\n",
        ["s.yaml:8: search.sparsity[2] must be in [0, 1), got 95; a percentage? write 0.95"],
    ),
    "sparsity one": ("sparsity: 1.0\n", ["s.yaml:4: sparsity must be in [0, 1), got 1.0; without the line it is 0.0"]),
    "negative epochs": (
        "training: {epochs: -3}\n",
        ["s.yaml:4: training.epochs must be >= 1, got -3; without the line it is 160"],
    ),
    "half a round": (
        "prune_iterations: 1.5\n",
        ["s.yaml:4: prune_iterations must be a whole number >= 1, got 1.5; without the line it is 1"],
    ),
    "true is no number": (
        "warmup_epochs: true\n",
        ["s.yaml:4: warmup_epochs must be a whole number >= 0, got true; without the line it is 0"],
    ),
    "off is no truth value": (
        "share_warmups: off\n",
        ["s.yaml:4: share_warmups must be true or false, got 'off'; without the line it is true"],
    ),
    "number in quotes": (
        "training: {lr: '1e-4'}\n",
        ["s.yaml:4: training.lr must be a number > 0, got '1e-4'; write 1e-4 without quotes"],
    ),
    "not a number": (
        "training: {lr: .nan}\n",
        ["s.yaml:4: training.lr must be a number > 0, got nan; without the line it is 0.1"],
    ),
    "gamma zero": ("training: {gamma: 0}\n", ["s.yaml:4: training.gamma must be in (0, 1], got 0; without the line it is 0.1"]),
    "list for one value": (
        "sparsity: [0.9, 0.95]\n",
        [
            "s.yaml:4: sparsity must be a number in [0, 1), got [0.9, 0.95]; "
            "to try several values move the line to search: sparsity: [0.9, 0.95]"
        ],
    ),
    "descending milestones": (
        "training: {milestones: [80, 40]}\n",
        ["s.yaml:4: training.milestones must be a list of ascending whole numbers >= 1, got [80, 40]; correct it or remove it"],
    ),
    "section without keys": (
        "drive:\n",
        ["s.yaml:4: drive must be a mapping of keys, got nothing; remove the line or write keys below it"],
    ),
    "unknown method": (
        "method: prune\n",
        [
            f"s.yaml:4: method must be {METHOD_RULE}, or a list of them without repeats, got 'prune'; "
            "without the line it is drive"
        ],
    ),
    "misspelt method in a list": (
        "method: [drive, dens]\n",
        [f"s.yaml:4: method[1] must be {METHOD_RULE}, got 'dens'; did you mean 'dense'?"],
    ),
    "misspelt choice": (
        "precision: fp23\n",
        ["s.yaml:4: precision must be one of auto, fp32, bf16, got 'fp23'; did you mean 'fp32'?"],
    ),
    "rewind in other words": (
        "rewind: 5\n",
        ["s.yaml:4: rewind must be none, init or epoch K, K a whole number, got 5; write '5' in quotes"],
    ),
    "one pattern without brackets": (
        "prunable: {exclude: head}\n",
        ["s.yaml:4: prunable.exclude must be a list of layer names or shell patterns, got 'head'; write [head]"],
    ),
    "several GPUs": (
        "resources: {gpus_per_trial: 2}\n",
        ["s.yaml:4: resources.gpus_per_trial must be in [0, 1], or auto, got 2; correct it or remove it"],
    ),
    "no CPU": (
        "resources: {cpus_per_trial: 0}\n",
        ["s.yaml:4: resources.cpus_per_trial must be a number > 0, or auto, got 0; without the line it is 1.0"],
    ),
    "empty axis": (
        "search:\n  seed: []\n",
        ["s.yaml:5: search.seed must have at least one value, got []; write a value or remove the key"],
    ),
    "axis without brackets": (
        "search:\n  seed: 3\n",
        ["s.yaml:5: search.seed must be a list of values, got 3; write [3]"],
    ),
    "repeated value": (
        "search:\n  seed: [1, 2, 1.0]\n",
        ["s.yaml:5: search.seed must not repeat a value, got [1, 2, 1.0]; remove one 1.0"],
    ),
    "search without axes": (
        "search:\n",
        [
            "s.yaml:4: search must be a mapping of keys to lists, got nothing; "
            "write `key: [value, value]` below it, or remove it"
        ],
    ),
    "misspelt axis": (
        "search:\n  warmup: [1]\n  warmup_epoch: [1]\n",
        [
            f"s.yaml:5: search.warmup {NUMBERS}, got 'warmup'; {ONLY_THOSE} warmup outside of search",
            f"s.yaml:6: search.warmup_epoch {NUMBERS}, got 'warmup_epoch'; did you mean 'warmup_epochs'?",
        ],
    ),
    "axis without its section": (
        "search:\n  lr: [0.1]\n",
        [f"s.yaml:5: search.lr {NUMBERS}, got 'lr'; did you mean 'training.lr'?"],
    ),
    "axis in a section": (
        "search:\n  training: {lr: [0.1]}\n",
        ["s.yaml:5: search.training must be a dotted key, got a mapping; write training.lr: [value, value]"],
    ),
    "axes that decide no number": (
        "search:\n  storage: [a]\n  name: [a]\n  dataset.root: [a]\n  resources.device: [cpu]\n",
        [
            f"s.yaml:5: search.storage {NUMBERS}, got 'storage'; {ONLY_THOSE} storage outside of search",
            f"s.yaml:6: search.name {NUMBERS}, got 'name'; {ONLY_THOSE} name outside of search",
            f"s.yaml:7: search.dataset.root {NUMBERS}, got 'dataset.root'; {ONLY_THOSE} dataset.root outside of search",
            f"s.yaml:8: search.resources.device {NUMBERS}, got 'resources.device'; "
            f"{ONLY_THOSE} resources.device outside of search",
        ],
    ),
    "axes that a sweep has once": (
        "search:\n  dataset.name: [digits]\n  method: [drive]\n",
        [
            "s.yaml:5: search.dataset.name must be one value for the whole sweep, got ['digits']; "
            "write one sweep for each data set",
            "s.yaml:6: search.method must be one value for the whole sweep, got ['drive']; "
            "write method: [drive, dense] outside of search",
        ],
    ),
    "searched and fixed": (
        "training:\n  lr: 0.1\nsearch:\n  training.lr: [0.1, 0.2]\n",
        [
            "s.yaml:7: search.training.lr must not be both fixed and searched, got training.lr 0.1 at s.yaml:5; "
            "remove one of the two"
        ],
    ),
    "budget too short": (
        "warmup_epochs: 8\ntraining:\n  budget: total\n  epochs: 8\n",
        [
            "s.yaml:7: training.epochs must be > warmup_epochs with training.budget total, got training.epochs 8, "
            "warmup_epochs 8; train longer or warm up shorter"
        ],
    ),
    "budget too short for one combination": (
        "search:\n  warmup_epochs: [0, 4, 8]\n  training.epochs: [20, 6]\ntraining: {budget: total}\n",
        [
            "s.yaml:6: search.training.epochs[1] must be > warmup_epochs with training.budget total, got training.epochs 6, "
            "warmup_epochs 8; train longer or warm up shorter"
        ],
    ),
    "rewind beyond the warm-up": (
        "rewind: epoch 3\nsearch:\n  warmup_epochs: [4, 2, 1]\n",
        [
            "s.yaml:4: rewind must name an epoch <= warmup_epochs, got rewind 'epoch 3', warmup_epochs 2; "
            "rewind less far or warm up longer"
        ],
    ),
    "no term left": (
        "drive: {magnitude: 0, convergence: 0}\nsearch:\n  drive.connection: [1, 0]\n",
        [
            "s.yaml:4: drive.magnitude must not be 0 with both other factors 0, got drive.magnitude 0.0, "
            "drive.connection 0.0, drive.convergence 0.0; raise one of the three"
        ],
    ),
    "nesterov without momentum": (
        "training:\n  momentum: 0\n  nesterov: true\n",
        [
            "s.yaml:6: training.nesterov must be false with momentum 0, got training.nesterov true, training.momentum 0.0; "
            "raise training.momentum"
        ],
    ),
    "duplicate key": ("name: y\n", ["s.yaml:4: name must not be written twice, got 'name' also on line 1; remove one of them"]),
    "not YAML": ("search: [\n", ["s.yaml:4: must be YAML, got 'search: ['; close the bracket"]),
    "tab": ("search:\n\tseed: [1]\n", ["s.yaml:5: must be YAML, got '\\tseed: [1]'; indent with spaces, not with tabs"]),
}

# Whole files, for mistakes in the lines that the table above takes for granted.
WRONG_FILES = {
    "empty": ("", ["s.yaml:1: must be a mapping of keys, got nothing; `drive-sweep init` writes a file to start from"]),
    "a list": ("- a\n", ["s.yaml:1: must be a mapping of keys, got a list; `drive-sweep init` writes a file to start from"]),
    "misspelt model": (
        "name: x\ndataset: {name: digits}\nmodel: resnet200\n",
        [f"s.yaml:3: model must be one of {MODELS}, got 'resnet200'; did you mean 'resnet20'?"],
    ),
    "bad name": (
        "model: convnet\nname: my sweep/1\ndataset: {name: digits}\n",
        [f"s.yaml:2: name must be {NAME_RULE}, got 'my sweep/1'; write my-sweep-1"],
    ),
    "name is a number": (
        "name: 2024\ndataset: {name: digits}\nmodel: convnet\n",
        [f"s.yaml:1: name must be {NAME_RULE}, got 2024; write '2024' in quotes"],
    ),
    "nothing but a comment key": (
        "# a sweep\nbaseline: none\n",
        [
            "s.yaml:2: dataset must be a mapping of keys, got nothing; add dataset: {name: digits}",
            f"s.yaml:2: model must be one of {MODELS}, got nothing; add model: convnet",
            f"s.yaml:2: name must be {NAME_RULE}, got nothing; add name: my-sweep",
        ],
    ),
    "dataset is a word": (
        "name: x\ndataset: digits\nmodel: convnet\n",
        ["s.yaml:2: dataset must be a mapping of keys, got 'digits'; write {name: digits}"],
    ),
    "logins in addresses": (
        "name: x\nmodel: convnet\ndataset: {name: digits}\nstorage: s3://key:secret@team/sweeps\n"
        "tracking: {uri: 'http://me:secret@mlflow:5000'}\n",
        [
            "s.yaml:4: storage must be a folder, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX without a login in it (that "
            "comes from the environment), got 's3://...@team/sweeps'; write s3://team/sweeps",
            "s.yaml:5: tracking.uri must be a folder or a URI without a login in it (that comes from the environment), "
            "got 'http://...@mlflow:5000'; write http://mlflow:5000",
        ],
    ),
    "files without a folder": (
        "name: x\nmodel: convnet\ndataset:\n  name: cifar10\n  image_size: 32\n",
        [
            "s.yaml:3: dataset.root must be given for cifar10, got dataset.root nothing, dataset.name 'cifar10'; "
            "add root: ./data",
            "s.yaml:5: dataset.image_size must not be given for cifar10, got dataset.image_size 32, dataset.name 'cifar10'; "
            "remove it, its images have one size",
        ],
    ),
    "misspelt folder, told once": (
        "name: x\nmodel: convnet\ndataset: {name: cifar10, rot: ./data}\n",
        ["s.yaml:3: dataset.rot must be a known key, got 'rot'; did you mean 'dataset.root'?"],
    ),
    "images without a size": (
        "name: x\nmodel: convnet\ndataset: {name: image_folder, root: a}\n",
        [
            "s.yaml:3: dataset.image_size must be given for image_folder, got dataset.image_size nothing, "
            "dataset.name 'image_folder'; add image_size: 32"
        ],
    ),
    "digits in a folder": (
        "name: x\nmodel: convnet\ndataset:\n  name: digits\n  root: a\n  download: true\n",
        [
            "s.yaml:5: dataset.root must not be given for digits, got dataset.root 'a', dataset.name 'digits'; "
            "remove it, digits come with the program",
            "s.yaml:6: dataset.download must be false for digits, got dataset.download true, dataset.name 'digits'; "
            "only cifar10, cifar100 and fashion_mnist are fetched",
        ],
    ),
    "a size that the images have, and what nobody may fetch": (
        "name: x\nmodel: convnet\ndataset: {name: tiny_imagenet, root: a, image_size: 32, download: true}\n",
        [
            "s.yaml:3: dataset.image_size must not be given for tiny_imagenet, got dataset.image_size 32, "
            "dataset.name 'tiny_imagenet'; remove it, its images have one size",
            "s.yaml:3: dataset.download must be false for tiny_imagenet, got dataset.download true, "
            "dataset.name 'tiny_imagenet'; only cifar10, cifar100 and fashion_mnist are fetched",
        ],
    ),
    "imagenet too small for the network": (
        "name: x\nmodel: alexnet\ndataset: {name: imagenet, root: a, image_size: 16}\n",
        [
            "s.yaml:2: model must be a network for images of 16 x 16 pixels, got model 'alexnet', dataset.name 'imagenet', "
            "dataset.image_size 16; the nearest that work are 32 x 32; resnet20 takes any",
        ],
    ),
    "small and greedy": (
        "name: x\nmodel: convnet\ndataset: {name: digits, limit: 9, validation: 0.6}\n",
        [
            "s.yaml:3: dataset.limit must be >= 10, got 9; correct it or remove it",
            "s.yaml:3: dataset.validation must be in [0, 0.5], got 0.6; without the line it is 0.1",
        ],
    ),
    "several at once, by line": (
        "name: x\ndataset: {name: digit}\nsearch:\n  sparsity: [0.9, 95]\n  sed: [1]\nmodel: convnet\n"
        "training:\n  epochs: 0\n  budget: total\nseed: -1\nrewind: epoch 2\n",
        [
            "s.yaml:2: dataset.name must be one of digits, cifar10, cifar100, fashion_mnist, image_folder, tiny_imagenet, "
            "imagenet, or {module: FILE.FUNCTION}, got 'digit'; did you mean 'digits'?",
            "s.yaml:4: search.sparsity[1] must be in [0, 1), got 95; a percentage? write 0.95",
            f"s.yaml:5: search.sed {NUMBERS}, got 'sed'; did you mean 'seed'?",
            "s.yaml:8: training.epochs must be >= 1, got 0; without the line it is 160",
            "s.yaml:10: seed must be >= 0, got -1; without the line it is 0",
            "s.yaml:11: rewind must name an epoch <= warmup_epochs, got rewind 'epoch 2', warmup_epochs 0; "
            "rewind less far or warm up longer",
        ],
    ),
}


@pytest.mark.parametrize(("addition", "told"), WRONG.values(), ids=WRONG)
def test_a_wrong_line_is_told_with_its_place_rule_value_and_way_out(addition: str, told: list[str]) -> None:
    assert refused(BASE + addition) == told


@pytest.mark.parametrize(("text", "told"), WRONG_FILES.values(), ids=WRONG_FILES)
def test_a_wrong_file_is_told_with_every_mistake(text: str, told: list[str]) -> None:
    assert refused(text) == told


@pytest.mark.parametrize("value", [None, "?", -7, 1.5, True, [], {}, [{}], "9" * 300])
def test_no_message_is_the_checker_s_own(value: Any) -> None:
    """Whatever stands at a key, fixed or searched, the message is ours: a place, `must` and what was got in each line."""
    for key, _ in schema_keys(SweepSpec):
        fixed: dict[str, Any] = {"name": "x", "dataset": {"name": "digits"}, "model": "convnet"}
        searched = fixed | {"search": {key: [value]}}
        section, _, name = key.rpartition(".")
        (fixed.setdefault(section, {}) if section else fixed)[name] = value
        for data in (fixed, searched):
            try:
                spec_from_resolved(data)
            except UserError as error:
                for line in str(error).split("\n"):
                    assert line.startswith("resolved sweep: "), line
                    assert " must " in line, line
                    assert ", got " in line, line
                    for foreign in ("Input should", "validation error", "pydantic", "Traceback", "annotation="):
                        assert foreign not in line, line
                    assert len(line) < 500, line


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["training.epochs"], "--set: must be KEY=VALUE, got 'training.epochs'; for example --set training.epochs=4"),
        (["=4"], "--set: must be KEY=VALUE, got '=4'; for example --set training.epochs=4"),
        (
            ["training.epochs=0"],
            "--set training.epochs: training.epochs must be >= 1, got 0; without the line it is 160",
        ),
        (
            ["search.sparsity=[0.9, 95]"],
            "--set search.sparsity: search.sparsity[1] must be in [0, 1), got 95; a percentage? write 0.95",
        ),
        (["trainig.epochs=4"], "--set trainig.epochs: trainig must be a known key, got 'trainig'; did you mean 'training'?"),
        (["search.seed=[1"], "--set search.seed: must be YAML, got '[1'; close the bracket"),
        (
            ["seed=3", "search.seed=[1]"],
            "--set search.seed: search.seed must not be both fixed and searched, got seed 3 at --set seed; "
            "remove one of the two",
        ),
        (
            ["rewind=epoch 1"],
            "--set rewind: rewind must name an epoch <= warmup_epochs, got rewind 'epoch 1', warmup_epochs 0; "
            "rewind less far or warm up longer",
        ),
    ],
)
def test_a_wrong_option_is_told_by_its_name(options: list[str], told: str) -> None:
    assert refused(BASE, *options) == [told]


def test_options_beat_the_file() -> None:
    text = BASE + "sparsity: 0.5\nsearch: {seed: [0, 1, 2], training.lr: [0.1, 0.2]}\ntraining: {epochs: 9}\n"
    spec = loaded(text, "training.epochs=4", "seed=7", "search.sparsity=[0.9]", "name=y", "resources={device: cpu}")
    assert (spec.name, spec.training.epochs, spec.seed, spec.resources.device) == ("y", 4, 7, "cpu")
    assert spec.search == {"training.lr": (0.1, 0.2), "sparsity": (0.9,)}
    assert loaded(text, "search={seed: [5]}").search == {"seed": (5,)}


def test_mistakes_of_file_and_options_come_together() -> None:
    assert [line.split(": ")[0] for line in refused(BASE + "sparsity: 7\n", "seed=-1", "training.lr=0")] == [
        "s.yaml:4",
        "--set seed",
        "--set training.lr",
    ]


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    ready = f"must be a file or one of the ready sweeps {', '.join(preset_names())}"
    (tmp_path / "folder").mkdir()
    (tmp_path / "latin.yaml").write_bytes(BASE.encode() + "# caf\xe9\n".encode("latin-1"))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for file, told in {
        "digit": f"digit: {ready}, got no such file; did you mean 'digits'?",
        "nothing.yaml": f"nothing.yaml: {ready}, got no such file; `drive-sweep init` writes a file to start from",
        "template": f"template: {ready}, got no such file; `drive-sweep init` writes a file to start from",
        "folder": "folder: must be a sweep file, got a folder; give a file in it",
        "latin.yaml": "latin.yaml:4: must be UTF-8 text, got byte 0xe9; save it as UTF-8",
        "loop": f"loop: must be readable, got {os.strerror(40)!r}; check the file and its permissions",
    }.items():
        with pytest.raises(UserError) as error:
            load_spec(file)
        assert str(error.value) == told


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_told(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").touch(mode=0o000)
    with pytest.raises(UserError, match=r"s\.yaml: must be readable, got 'Permission denied'"):
        load_spec("s.yaml")


@pytest.mark.parametrize(
    ("name", "pruned", "baselines"), [("digits", 48, 2), ("fashion-mnist", 60, 2), ("cifar10-resnet20", 180, 3)]
)
def test_ready_sweeps_have_the_trials_they_tell_of(name: str, pruned: int, baselines: int) -> None:
    methods = [config.method for config in expand(load_spec(name))]
    assert methods == ["drive"] * pruned + ["dense"] * baselines
    assert name in preset_names()


@pytest.mark.parametrize("name", [name for name in preset_names() if "/" in name])
def test_recipes_name_their_source_and_hold_what_it_says(name: str) -> None:
    text = preset_text(name)
    folder, dataset = name.split("/")
    spec = load_spec(name)
    assert spec.name == name.replace("/", "-")
    assert dataset.startswith(spec.dataset.name.replace("_", "-"))
    assert expand(spec)
    assert spec.training.milestones == {"synflow-parity": (60, 120)}.get(
        folder, (30, 60, 80) if "/imagenet" in name else (80, 120)
    )
    assert "arXiv:" in text
    assert ("Assum" in text or "assum" in text) or folder != "reference"


def test_a_ready_sweep_that_is_not_there_is_told() -> None:
    with pytest.raises(UserError, match=r"--from: must be a ready sweep, got 'reference/cifar10-vgg17'; did you mean"):
        preset_text("reference/cifar10-vgg17")


def test_a_file_wins_over_the_ready_sweep_of_its_name() -> None:
    assert load_spec("digits").name == "digits"
    Path("digits").write_text(BASE)
    assert load_spec("digits").name == "x"


def test_the_ready_digits_sweep_needs_nothing_from_outside() -> None:
    spec = load_spec("digits")
    assert spec.source() == DatasetSource(name="digits")
    assert (spec.storage, spec.tracking.uri) == ("./runs", None)
    assert (spec.resources.device, spec.resources.cpus_per_trial, spec.resources.deterministic) == ("cpu", 1.0, True)
    assert {(c.training.epochs, c.training.batch_size, c.training.lr, c.precision) for c in expand(spec)} == {
        (8, 64, 0.1, "fp32")
    }


def test_the_template_is_a_sweep_and_shows_every_key() -> None:
    assert expand(loaded(template()))
    for key, _ in schema_keys(SweepSpec):
        assert f"{key.rpartition('.')[2]}:" in template(), key


def test_axes_follow_the_file_with_the_seed_fastest() -> None:
    spec = loaded(BASE + "baseline: none\nsearch: {seed: [1, 0], sparsity: [0.9, 0.5], warmup_epochs: [2, 1]}\n")
    assert [(config.sparsity, config.warmup_epochs, config.seed) for config in expand(spec)] == [
        (sparsity, warmup, seed) for sparsity in (0.9, 0.5) for warmup in (2, 1) for seed in (1, 0)
    ]


def test_dense_baselines_are_one_for_each_combination_that_is_not_about_pruning() -> None:
    spec = loaded(
        BASE + "rewind: init\nwarmup: {lr: 0.5}\ndrive: {magnitude: 0}\nprunable: {exclude: [head]}\n"
        "search: {warmup_epochs: [1, 2], training.lr: [0.1, 0.2], drive.connection: [1, 2], sparsity: [0.9], seed: [0, 1]}\n"
    )
    trials = expand(spec)
    plain = TrialConfig(dataset=DatasetConfig(name="digits"), model="convnet", method="dense")
    assert len(trials) == 2 * 2 * 2 * 2 + 4
    assert trials[16:] == [
        replace(plain, seed=seed, training=replace(plain.training, lr=lr)) for lr in (0.1, 0.2) for seed in (0, 1)
    ]


def test_a_dense_method_is_the_baseline_and_stands_once() -> None:
    both = loaded(BASE + "method: [drive, dense]\nsearch: {sparsity: [0.5, 0.9], seed: [0, 1]}\n")
    assert [config.method for config in expand(both)] == ["drive"] * 4 + ["dense"] * 2
    assert trial_names(expand(both))[4:] == ["dense-r0", "dense-r1"]
    alone = loaded(BASE + "method: dense\nbaseline: none\nsearch: {sparsity: [0.5, 0.9]}\n")
    assert trial_names(expand(alone)) == ["dense-r0"]
    without = loaded(BASE + "baseline: none\nsearch: {seed: [0, 1]}\n")
    assert [config.method for config in expand(without)] == ["drive", "drive"]


def test_a_model_may_be_searched_instead_of_fixed() -> None:
    text = "name: x\ndataset: {name: digits}\nsearch: {model: [resnet20, convnet]}\nbaseline: none\n"
    assert [config.model for config in expand(loaded(text))] == ["resnet20", "convnet"]
    assert trial_names(expand(loaded(text))) == ["w00-i001-s0.0-r0-modelresnet20", "w00-i001-s0.0-r0-modelconvnet"]
    assert spec_from_resolved(resolved(loaded(text))) == loaded(text)
    told = f"s.yaml:3: search.model[0] must be one of {MODELS}, got 'resnet200'; did you mean 'resnet20'?"
    assert refused(text.replace("resnet20", "resnet200")) == [told]


@pytest.mark.parametrize(
    ("addition", "names"),
    [
        ("warmup_epochs: 4\nprune_iterations: 50\nsparsity: 0.95\n", ["w04-i050-s0.95-r0", "dense-r0"]),
        (
            "seed: 12\nsearch: {sparsity: [0.90, 0, 1.0e-5]}\n",
            [*(f"w00-i001-s{s}-r12" for s in ("0.9", "0.0", "1e-05")), "dense-r12"],
        ),
        ("search: {warmup_epochs: [5, 100]}\n", ["w005-i001-s0.0-r0", "w100-i001-s0.0-r0", "dense-r0"]),
        ("search: {prune_iterations: [1, 2000]}\n", ["w00-i0001-s0.0-r0", "w00-i2000-s0.0-r0", "dense-r0"]),
        (
            "search: {training.lr: [0.1, 1e-3]}\n",
            ["w00-i001-s0.0-r0-lr0.1", "w00-i001-s0.0-r0-lr0.001", "dense-r0-lr0.1", "dense-r0-lr0.001"],
        ),
        (
            "warmup_epochs: 3\nbaseline: none\nsearch: {warmup.lr: [0.1, 0.2], training.lr: [1], rewind: [init, epoch 2]}\n",
            [f"w03-i001-s0.0-r0-rewind{rewind}-lr{lr}" for lr in (0.1, 0.2) for rewind in ("init", "epoch2")],
        ),
        (
            "baseline: none\nsearch: {warmup.lr: [0.1, null], training.lr: [1, 2]}\n",
            [f"w00-i001-s0.0-r0-warmup.lr{warmup}-training.lr{lr}" for warmup in ("0.1", "none") for lr in ("1.0", "2.0")],
        ),
        (
            "search: {training.milestones: [[4, 6], []]}\nbaseline: none\n",
            ["w00-i001-s0.0-r0-milestones[4,6]", "w00-i001-s0.0-r0-milestones[]"],
        ),
    ],
)
def test_names_hold_what_varies_with_all_its_digits(addition: str, names: list[str]) -> None:
    assert trial_names(expand(loaded(BASE + addition))) == names


def test_defaults_are_those_of_the_trial() -> None:
    trial = TrialConfig(dataset=DatasetConfig(name="digits"), model="convnet")
    assert expand(loaded(BASE + "baseline: none\n")) == [trial]
    assert canonical(expand(loaded(BASE))[0]) == {"dataset": {"name": "digits"}, "model": "convnet"}


def test_every_key_of_a_trial_can_be_written_and_searched() -> None:
    written = {key for key, _ in schema_keys(SweepSpec)}
    assert set(TRIAL_KEYS) <= written
    assert set(TRIAL_KEYS) - set(SEARCHABLE) == {"dataset.name", "dataset.image_size", "method", "initial_weights"}


def test_whole_numbers_and_numbers_may_be_written_either_way() -> None:
    spec = loaded(BASE + "seed: 1.0\nsparsity: 0\ntraining: {epochs: 1e1, lr: 1, milestones: [2.0, 4]}\n")
    config = expand(spec)[0]
    assert (config.seed, config.sparsity, config.training.epochs, config.training.lr) == (1, 0.0, 10, 1.0)
    assert [type(value) for value in (config.seed, config.sparsity, config.training.epochs, config.training.lr)] == [
        int,
        float,
        int,
        float,
    ]
    assert config.training.milestones == (2, 4)


def test_the_source_is_what_the_file_says() -> None:
    spec = loaded("name: x\nmodel: convnet\ndataset: {name: image_folder, root: ~/images, image_size: 16}\n")
    assert spec.source() == DatasetSource(name="image_folder", root="~/images", image_size=16)
    assert expand(spec)[0].dataset == DatasetConfig(name="image_folder", image_size=16)


@pytest.mark.parametrize(("written", "side"), [("", 224), (", image_size: 64", 64)])
def test_imagenet_takes_any_image_size_and_has_one_without(written: str, side: int) -> None:
    spec = loaded(f"name: x\nmodel: alexnet\ndataset: {{name: imagenet, root: a{written}}}\n")
    assert image_side(expand(spec)[0].dataset) == side


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashion_mnist"])
def test_what_can_be_fetched_may_be(name: str) -> None:
    spec = loaded(f"name: x\nmodel: convnet\ndataset: {{name: {name}, root: a, download: true}}\n")
    assert spec.source() == DatasetSource(name=name, root="a", download=True)


@pytest.mark.parametrize("name", ["digits", "fashion-mnist", "cifar10-resnet20"])
def test_the_resolved_form_gives_the_same_sweep_again(name: str) -> None:
    spec = load_spec(name, ["search.training.milestones=[[4, 6], null]"] if name == "digits" else [])
    plain = json.loads(json.dumps(resolved(spec)))
    again = spec_from_resolved(plain)
    assert again == spec
    assert expand(again) == expand(spec)
    assert expand(loaded(json.dumps(plain))) == expand(spec)  # it is a sweep file by itself


def test_a_damaged_resolved_form_is_refused() -> None:
    plain = resolved(load_spec("digits"))
    with pytest.raises(
        UserError, match="resolved sweep: sparsiti must be a known key, got 'sparsiti'; did you mean 'sparsity'"
    ):
        spec_from_resolved(plain | {"sparsiti": 3})
    with pytest.raises(UserError, match="resolved sweep: must be a mapping, got nothing"):
        spec_from_resolved(None)  # type: ignore[arg-type]


@pytest.mark.skipif(importlib.util.find_spec("jsonschema") is None, reason="jsonschema is not installed")
def test_the_schema_agrees_about_right_and_wrong_files() -> None:
    import jsonschema

    from orchestrator.spec.yaml_document import parse

    jsonschema.Draft202012Validator.check_schema(json_schema())
    validator = jsonschema.Draft202012Validator(json_schema())
    right = [ROOT / "orchestrator" / "sweeps" / f"{name}.yaml" for name in (*preset_names(), "template")]
    for file in right:
        assert [error.message for error in validator.iter_errors(parse(file.read_text(), file.name).data)] == []
    for wrong in (
        "sparsity: 95",
        "nmae: y",
        "seed: 1.5",
        "training: {lr: 0}",
        "dataset.limit: 3",
        "search: {seed: []}",
        "search: {seed: [1, 1]}",
        "search: {sparsity: [0.9, 95]}",
        "search: {dataset.limit: [3]}",
        "search: {storage: [a]}",
        "rewind: later",
        "method: prune",
    ):
        assert not validator.is_valid(parse(BASE + wrong, "f").data), wrong
    for correct in ("method: [drive, dense]", "training: {milestones: [1, 2.0]}", "search: {training.milestones: [null, [1]]}"):
        assert validator.is_valid(parse(BASE + correct, "f").data), correct


def test_every_key_of_the_schema_is_described() -> None:
    schema = json_schema()

    def undescribed(properties: dict[str, Any]) -> list[str]:
        return [key for key, value in properties.items() if not value.get("description")]

    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert undescribed(schema["properties"]) == []
    assert undescribed(schema["properties"]["search"]["properties"]) == []
    assert list(schema["properties"]["search"]["properties"]) == list(SEARCHABLE)
    for name, part in schema["$defs"].items():
        assert undescribed(part["properties"]) == [], name


def test_reading_a_sweep_file_is_quick_and_needs_no_heavy_import(tmp_path: Path) -> None:
    code = """
import sys, time
begun = time.process_time()
import orchestrator.spec.loader
print(time.process_time() - begun)
orchestrator.spec.loader.load_spec("digits")
print(*sorted({"torch", "ray", "mlflow", "numpy", "pyarrow"} & set(sys.modules)))
"""
    environment = os.environ | {"PYTHONPYCACHEPREFIX": str(tmp_path), "PYTHONDONTWRITEBYTECODE": ""}
    answers = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment).stdout.split(
            "\n"
        )
        for _ in range(3)  # the first one compiles
    ]
    assert min(float(seconds) for seconds, *_ in answers) < 0.5
    assert {heavy for _, heavy, *_ in answers} == {""}


def test_the_models_of_the_sweep_file_can_be_built() -> None:
    from trainables.models.registry import build_model

    for name in NETWORKS:
        assert build_model(name, (1, 32, 32), 10)
