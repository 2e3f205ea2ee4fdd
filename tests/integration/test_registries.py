"""A toy entry in each table of trainables runs end to end: nothing else needs to know of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT

TOYS = """\
import sys

import numpy as np
import torch
from torch import nn

from trainables.config import methods
from trainables.config.method import Course, Method
from trainables.config.options import Options, option
from trainables.data import table as datasets
from trainables.data.dataset import Dataset
from trainables.data.facts import facts_of, numbered_classes
from trainables.models import table as networks
from trainables.models.table import Network
from trainables.pruning.scoring import Scores
from trainables.pruning.sparse_trainers import FixedMasks
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class ToyOptions(Options):
    power: float = option(1.0, "Power of |w|.", gt=0)


def score_toy(context):
    return Scores(scores=context.flatten(context.weights).abs() ** context.options_as(ToyOptions).power)


class ToyMasks(FixedMasks):
    "Dense until the last step, then as magnitude prunes."

    @classmethod
    def start(cls, training):
        made = cls(training.model, training.masks)
        made.last = training.steps
        made.keep = round((1 - training.config.sparsity) * sum(mask.numel() for mask in training.masks.values()))
        return made

    def after_step(self, step):
        if step == self.last:
            sizes = torch.cat([weight.detach().abs().flatten() for weight in self.weights.values()])
            least = sizes.sort(descending=True).values[self.keep - 1]
            self._set({name: weight.detach().abs() >= least for name, weight in self.weights.items()})
        super().after_step(step)


class ToyData(Dataset):
    name = "toy_data"
    side = 8
    takes_root = False
    digest = "0" * 32

    def read(self, source):
        labels = np.arange(60, dtype=np.int64) % 3
        images = np.random.default_rng(0).integers(0, 60, (60, 1, 8, 8)).astype(np.uint8)
        images[np.arange(60), 0, labels] = 255
        return [images, labels, images[:30], labels[:30]], 3

    def facts(self, source):
        return facts_of((1, 8, 8), numbered_classes(3), [20] * 3, [10] * 3)


def build_toy(image_shape, num_classes, width):
    channels, height, side = image_shape
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * side, 20), nn.ReLU(), nn.Linear(20, num_classes))


if "toys" in sys.argv.pop(1):
    methods.METHODS["toy"] = Method(
        name="toy", course=Course.ROUNDS, options=ToyOptions, implementation="toys:score_toy", description="A toy.", keeps=""
    )
    methods.METHODS["toy_masks"] = Method(
        name="toy_masks", course=Course.EVERY_STEP, implementation="toys:ToyMasks", description="A toy.", keeps="toys"
    )
    networks.NETWORKS["toy_net"] = Network(name="toy_net", build=build_toy, description="A toy.")
    datasets.DATASETS["toy_data"] = ToyData()
sys.modules["toys"] = sys.modules["__main__"]

from orchestrator.cli import main

for line in sys.stdin:
    code = main(line.split())
    if code:
        sys.exit(code)
"""
SWEEP = """\
name: toys
dataset: {name: toy_data}
model: toy_net
method: [toy, magnitude, toy_masks]
search: {toy.power: [1, 2.5]}
sparsity: 0.5
warmup_epochs: 1
training: {epochs: 1, batch_size: 10}
precision: fp32
resources: {device: cpu, cpus_per_trial: 1}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "toys.py").write_text(TOYS)
    (tmp_path / "s.yaml").write_text(SWEEP)
    return tmp_path


def answers(folder: Path, *commands: str, toys: str = "toys", code: int = 0) -> list[Any]:
    """What the commands answer, one after another in a process in which the tables have the toys."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DRIVE_SWEEP_CACHE": str(folder / "cache")}
    lines = "".join(f"{command} --json\n" for command in commands)
    process = [sys.executable, "toys.py", toys]
    done = subprocess.run(
        process, cwd=folder, env=environment, input=lines, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == code, done.stderr
    return values_in(done.stdout) if code == 0 else [done.stderr]


def values_in(text: str) -> list[Any]:
    """The JSON values that follow one another there."""
    values, rest = [], text.lstrip()
    while rest:
        value, end = json.JSONDecoder().raw_decode(rest)
        values.append(value)
        rest = rest[end:].lstrip()
    return values


def test_toy_method_network_and_data_set_are_planned_and_run(folder: Path) -> None:
    trials = [f"trial s.yaml --index {index}" for index in range(4)]
    plan, *results, again = answers(folder, "plan s.yaml", *trials, "plan s.yaml")
    names = [trial["name"] for trial in plan["keys"]]
    assert names == [
        "toy-w01-i001-s0.5-r0-power1.0",
        "toy-w01-i001-s0.5-r0-power2.5",
        "magnitude-w01-s0.5-r0",
        "toy_masks-w01-s0.5-r0",
        "dense-r0",
    ]
    assert len({result["model_sha256"] for result in results[:3]}) == 1  # a power keeps the order of magnitudes
    assert len({trial["key"] for trial in plan["keys"]}) == 5
    prunable = 64 * 20 + 20 * 3
    assert [result["kept_weights"] for result in results] == [prunable // 2] * 4
    assert [result["num_classes"] for result in results] == [3] * 4
    assert results[3]["config"]["method"] == "toy_masks"
    assert sum(trial["done"] for trial in again["keys"]) == 4


def test_unknown_names_are_refused_with_the_known_ones(folder: Path) -> None:
    (problems,) = answers(folder, "plan s.yaml", toys="none", code=2)
    for line in ("method[0] must be one of drive, ", "dataset.name must be one of digits, ", "model must be one of convnet, "):
        assert line in problems
