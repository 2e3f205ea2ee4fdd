"""Custom modules for tests: a network, a data set, losses; and helpers that plan and run trials of them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.planning.plan import Plan, make_plan
from orchestrator.spec.loader import load_spec
from orchestrator.storage.base import Storage
from orchestrator.storage.layout import TrialFolder, WarmupFolder
from tests.support.trials import DIGITS, RUNTIME, tiny_config
from trainables.config.keys import inputs_digest, trial_key, warmup_key
from trainables.config.trial import DatasetConfig, TrialConfig
from trainables.custom.files import CustomFiles
from trainables.custom.references import is_custom
from trainables.data.datasets import content_digest
from trainables.data.source import DatasetSource
from trainables.errors import TrialError
from trainables.models.registry import build_model, initialize
from trainables.trial.context import TrialContext
from trainables.trial.runner import run_trial

# The built-in convnet written again, with another initialisation; needs nothing of this project.
NETS = """\
import torch
from torch import nn


class Wide(nn.Module):
    def __init__(self, channels, num_classes, width=16):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, 32, 3, padding=1, stride=2, bias=False)
        self.norm2 = nn.BatchNorm2d(32)
        self.conv3 = nn.Conv2d(32, 32, 3, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(32)
        self.head = nn.Linear(32 * 4, num_classes)

    def forward(self, images):
        hidden = torch.relu(self.norm1(self.conv1(images)))
        hidden = torch.relu(self.norm2(self.conv2(hidden)))
        hidden = torch.relu(self.norm3(self.conv3(hidden)))
        return self.head(nn.functional.avg_pool2d(hidden, hidden.shape[-1] // 2).flatten(1))


def wide(image_shape, num_classes):
    return Wide(image_shape[0], num_classes)
"""
DATA = """\
from trainables.data.digits import read_digits


def load(root):
    (train_images, train_labels, test_images, test_labels), num_classes = read_digits()
    return train_images, train_labels.tolist(), test_images, test_labels.astype("int32"), num_classes
"""
LOSSES = """\
import torch


def by_hand(logits, labels):
    return -torch.log_softmax(logits, 1)[torch.arange(len(labels)), labels].mean()


def doubled(logits, labels):
    return 2 * by_hand(logits, labels)
"""
SCORES = """\
import torch


def snip(context):
    _, gradients = context.loss_and_gradients(context.batches())
    return context.flatten({name: (weight * gradients[name]).abs() for name, weight in context.weights.items()})


def scaled(context):
    return snip(context) * context.options["factor"]


def drawn(context):
    return torch.rand(len(context.flatten(context.weights)))


def drawn_after_damage(context):
    for weight in context.model.parameters():
        weight.data.zero_()
    return drawn(context)


def raises(context):
    raise ValueError("no score")


def for_all_weights(context):
    return torch.cat([weight.flatten() for weight in context.weights.values()])


def as_list(context):
    return context.flatten(context.weights).tolist()


def whole(context):
    return context.flatten(context.weights).round().long()


calls = []


def counted(context):
    calls.append(None)
    return context.flatten(context.weights) * len(calls) + len(calls) % 2
"""
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
FILES = {"mynets": NETS, "mydata": DATA, "mylosses": LOSSES, "myscores": SCORES}


def write_modules(folder: Path, **files: str) -> Path:
    """The folder with all the files, some of them with another content."""
    for name, text in (FILES | files).items():
        file = folder / f"{name}.py"
        if not file.exists() or file.read_text() != text:  # its time is part of what the cache of decoded images goes by
            file.write_text(text)
    return folder


def custom_config(**changes: Any) -> TrialConfig:
    """A tiny trial whose network is the user's."""
    return replace(tiny_config(model="module:mynets.wide"), **changes)


def custom_dataset() -> DatasetConfig:
    """The tiny trials' data set, by the user's own function."""
    return replace(tiny_config().dataset, name="module:mydata.load", augment="none")


def run_custom(config: TrialConfig, storage: Storage, folder: Path, weights: Path | None = None) -> dict[str, Any]:
    """The result of a trial whose modules lie in `folder`, planned and run as a sweep does it."""
    custom_files = CustomFiles(modules_path=str(folder), initial_weights=str(weights)).with_digests([config])
    source = DatasetSource(name=config.dataset.name, modules_path=str(folder)) if is_custom(config.dataset.name) else DIGITS
    inputs = inputs_digest(content_digest(source), custom_files.digests_of(config))
    key = trial_key(config, inputs)
    files = TrialFolder(storage, key, 1, "own", owner="tests")
    files.claim_attempt()
    context = TrialContext(
        source=source,
        runtime=RUNTIME,
        files=files,
        snapshots=WarmupFolder(storage, f"warmups/{warmup_key(config, inputs)}", RUNTIME.fingerprint_id()),
        custom_files=custom_files,
        provenance={"key": key, "data_digest": content_digest(source)},
    )
    return run_trial(config, context)


def sha256_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def plan_of(text: str, storage: Storage, *options: str) -> Plan:
    """The plan of a sweep file in the current folder."""
    Path("s.yaml").write_text(text)
    return make_plan(load_spec("s.yaml", options), storage, hash_data=True)


def dense_weights() -> dict[str, torch.Tensor]:
    network = build_model("convnet", (1, 8, 8), 10)
    initialize(network, tiny_config().seed)
    return network.state_dict()


def rejection(config: TrialConfig, storage: Storage, folder: Path, kind: type[TrialError], weights: Path | None = None) -> str:
    """The error that a trial is rejected with before it trained anything."""
    with pytest.raises(kind) as error:
        run_custom(config, storage, folder, weights)
    assert not list(Path(storage.root).glob("warmups/*/*"))
    return str(error.value)
