"""Errors in a sweep file: each is reported with its line, key, value and a hint, all at once."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.errors import UserError
from orchestrator.spec.axes import schema_keys
from orchestrator.spec.loader import spec_from_resolved
from orchestrator.spec.schema import SweepSpec
from tests.support.sweep_files import BASE, error_lines, load_text
from trainables.config.methods import METHODS
from trainables.models.table import NETWORKS

MODELS = ", ".join(NETWORKS) + ", or {module: FILE.FUNCTION}"
METHOD_RULE = f"one of {', '.join(METHODS)}, {{module: FILE.FUNCTION, options: {{...}}}}"
NAME_RULE = "at most 100 letters, digits, '.', '_' and '-', beginning with a letter or digit"
NUMBERS = "must be a key that decides a trial's numbers"
ONLY_THOSE = "only those can be searched: write"

# Added to BASE, which has lines 1 to 3 -> the whole message.
INVALID_LINES = {
    "unknown key": ("nmae: y\n", ["s.yaml:4: nmae must be a known key, got 'nmae'; did you mean 'name'?"]),
    "unknown key of a section": (
        "training:\n  epochs: 3\n  learning: 0.1\n  momentun: 0.9\n",
        [
            "s.yaml:6: training.learning must be a known key, got 'learning'; known are epochs, batch_size, lr, momentum, "
            "nesterov, weight_decay, milestones, gamma, budget, schedule, lr_warmup_epochs, label_smoothing, clip_norm, "
            "loss, spiking",
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
        ["s.yaml:4: prune_iterations must be a whole number >= 1, or auto, got 1.5; without the line it is 1"],
    ),
    "true is no number": (
        "warmup_epochs: true\n",
        ["s.yaml:4: warmup_epochs must be a whole number >= 0, or auto, got true; without the line it is 0"],
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
    "one and a half GPUs": (
        "resources: {gpus_per_trial: 1.5}\n",
        [
            "s.yaml:4: resources.gpus_per_trial must be a share of one GPU in [0, 1], a whole number of GPUs, or auto, got "
            "1.5; several GPUs are whole ones: write 1 or 2"
        ],
    ),
    "no CPU": (
        "resources: {cpus_per_trial: 0}\n",
        ["s.yaml:4: resources.cpus_per_trial must be a number > 0, or auto, got 0; correct it or remove it"],
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
    "duplicate key": ("name: y\n", ["s.yaml:4: name must not be written twice, got 'name' also on line 1; remove one of them"]),
    "not YAML": ("search: [\n", ["s.yaml:4: must be YAML, got 'search: ['; close the bracket"]),
    "tab": ("search:\n\tseed: [1]\n", ["s.yaml:5: must be YAML, got '\\tseed: [1]'; indent with spaces, not with tabs"]),
}

# Whole files, for errors in the lines of BASE.
INVALID_FILES = {
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
    "misspelt folder, reported once": (
        "name: x\nmodel: convnet\ndataset: {name: cifar10, rot: ./data}\n",
        ["s.yaml:3: dataset.rot must be a known key, got 'rot'; did you mean 'dataset.root'?"],
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


@pytest.mark.parametrize(("addition", "expected"), INVALID_LINES.values(), ids=INVALID_LINES)
def test_error_has_location_rule_value_and_hint(addition: str, expected: list[str]) -> None:
    assert error_lines(BASE + addition) == expected


@pytest.mark.parametrize(("text", "expected"), INVALID_FILES.values(), ids=INVALID_FILES)
def test_error_lists_every_problem_of_a_file(text: str, expected: list[str]) -> None:
    assert error_lines(text) == expected


@pytest.mark.parametrize("value", [None, "?", -7, 1.5, True, [], {}, [{}], "9" * 300])
def test_error_has_no_words_of_pydantic(value: Any) -> None:
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
    ("options", "expected"),
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
def test_error_of_an_option_names_the_option(options: list[str], expected: str) -> None:
    assert error_lines(BASE, *options) == [expected]


def test_errors_of_file_and_options_are_reported_together() -> None:
    assert [line.split(": ")[0] for line in error_lines(BASE + "sparsity: 7\n", "seed=-1", "training.lr=0")] == [
        "s.yaml:4",
        "--set seed",
        "--set training.lr",
    ]


def test_single_error_has_message_hint_and_code_apart() -> None:
    with pytest.raises(UserError) as error:
        load_text(BASE + "sparsity: 95\n")
    assert error.value.message == "s.yaml:4: sparsity must be in [0, 1), got 95"
    assert error.value.hint == "a percentage? write 0.95"
    assert error.value.code == "sweep-file-invalid"
