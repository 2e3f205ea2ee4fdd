"""Trials that hang: each is ended and tried again, and gives the bits that it would have given."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.support.cli import drive_sweep, status

# Each kind once, in the middle of a training: in a loop, at a lock, in a read, and stopped from outside.
NETWORK = """
import os, signal, threading
from pathlib import Path

from torch import nn
from trainables.runtime import heartbeat

ONCE = Path({once!r})


def hang(kind):
    if kind == 0:
        while True:
            pass
    if kind == 1:
        lock = threading.Lock()
        with lock, lock:
            pass
    if kind == 2:
        os.read(os.pipe()[0], 1)
    os.kill(os.getpid(), signal.SIGSTOP)


class Hanging(nn.Sequential):
    def forward(self, images):
        if self.training and heartbeat._heart.listener is not None and ONCE.exists():
            for kind in range(4):
                try:
                    (ONCE / str(kind)).unlink()
                except FileNotFoundError:
                    continue
                hang(kind)
        return super().forward(images)


def net(image_shape, num_classes):
    layers = nn.Conv2d(image_shape[0], 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
    return Hanging(*layers, nn.Linear(32, num_classes))
"""
SWEEP = """
name: hangs
dataset: {{name: digits, limit: 200}}
model: {{module: hanging.net}}
modules_path: {folder}
search: {{seed: [0, 1, 2, 3]}}
warmup_epochs: 0
prune_iterations: 2
sparsity: 0.9
baseline: none
training: {{epochs: 3, batch_size: 50, lr: 0.05}}
stage_timeout: 10
resources: {{device: cpu, cpus_per_trial: 1}}
tracking: {{models: none}}
"""


@pytest.mark.long
def test_each_kind_of_hang_is_found_and_costs_no_bit(tmp_path: Path) -> None:
    once = tmp_path / "once"
    (tmp_path / "hanging.py").write_text(NETWORK.format(once=str(once)))
    file = tmp_path / "hangs.yaml"
    file.write_text(SWEEP.format(folder=tmp_path))
    drive_sweep("run", file, "--storage", tmp_path / "healthy", "--quiet")
    once.mkdir()
    for kind in range(4):
        (once / str(kind)).touch()
    drive_sweep("run", file, "--storage", tmp_path / "runs", "--quiet")
    assert list(once.iterdir()) == []
    assert status("hangs", tmp_path / "runs")["finished"] == 4
    assert digests(tmp_path / "runs") == digests(tmp_path / "healthy")
    log = (tmp_path / "runs/sweeps/hangs/sweep.log").read_text()
    hangs = re.findall(r"hung in .*: it reported nothing for (\d+) s \(limit 10 s\), it was (.*)", log)
    assert len(hangs) == 4
    assert all(int(seconds) <= 15 for seconds, _ in hangs)
    states = sorted(state for _, state in hangs)
    assert states == ["computing", "stopped by a signal (SIGSTOP)", "waiting", "waiting"]
    assert log.count("in forward") >= 3, "the stacks say where"


def digests(storage: Path) -> dict[str, str]:
    return {path.parent.name: json.loads(path.read_text())["model_sha256"] for path in storage.glob("trials/*/result.json")}
