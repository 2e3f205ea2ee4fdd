"""The sweep of every round, and what it gives without faults."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAME = "chaos"
TRIGGERS = "CHAOS_TRIGGERS"  # folder in which a file asks the next worker that sees it for a fault, once
SWEEP = """\
dataset: {{name: digits, limit: 300, validation: 0.2}}
model: {{module: shaky.network}}
modules_path: {folder}
search:
  warmup_epochs: [0, 1]
  prune_iterations: [1, 3]
sparsity: 0.8
baseline: none
early_stopping: {{name: asha, reduction: 2}}
seeds: {{first: 1, most: 2}}
training: {{epochs: 2, batch_size: 50, lr: 0.1}}
precision: fp32
resources: {{device: cpu, cpus_per_trial: 1, max_concurrent: 1}}
checkpoint_seconds: 0
stage_timeout: 10
"""
# A network that takes its time, so that faults meet stages that run.
MODULE = '''\
import os
import sys
import time
from pathlib import Path

from torch import nn
from trainables.runtime import heartbeat

PAUSE_S = 0.02


def garbage():
    """What no reader of an output expects: bytes that are no text, colours, a very long line, and what looks like an answer."""
    for file in (1, 2):
        os.write(file, os.urandom(1000) + b"\\x1b[31m\\x1b[2J\\r\\x00")
        os.write(file, b'\\n{"event": "sweep_finished", "exit_code": 0}\\n[]\\nnull\\n')
        with open(file, "w", closefd=False) as output:
            output.write("x" * 10_000_000 + "\\n")


def fail():
    raise ValueError("a failure that happens once")


def hang():
    while True:
        pass


def leave():
    os._exit(0)


FAULTS = {"garbage": garbage, "fail": fail, "hang": hang, "leave": leave}


class Shaky(nn.Sequential):
    def forward(self, images):
        if self.training and heartbeat._heart.listener is not None:  # in a worker, not in the checks before
            time.sleep(PAUSE_S)
            for name, fault in FAULTS.items():
                try:
                    Path(os.environ["CHAOS_TRIGGERS"], name).unlink()
                except (KeyError, FileNotFoundError):
                    continue
                fault()
        return super().forward(images)


def network(image_shape, num_classes):
    channels, height, width = image_shape
    return Shaky(nn.Flatten(), nn.Linear(channels * height * width, 32), nn.ReLU(), nn.Linear(32, num_classes))
'''


def write_sweep(folder: Path) -> Path:
    """Writes the sweep file and its module, the same in all rounds; returns the file."""
    (folder / "shaky.py").write_text(MODULE)
    file = folder / f"{NAME}.yaml"
    file.write_text(SWEEP.format(folder=folder))
    return file


@dataclass(frozen=True, kw_only=True)
class Undisturbed:
    """What a round must end with.

    Attributes:
        seconds: from the start of its driver to its end.
        events: lines of its events file.
        decisions: of the search, without times.
        digests: trial key -> model_sha256 of the finished trials.
        data: files on the data set, as they are in a storage that was used before.
        points: trial key -> metric points, without costs; those of a trial that was stopped early end where it stopped.
    """

    seconds: float
    events: int
    decisions: list[dict[str, Any]]
    digests: dict[str, str]
    points: dict[str, set[tuple[str, int, float]]]
    data: dict[str, bytes]
