"""Users' code that hangs: a trial is ended, tried again and gives the bits that it would have given; a command says where."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from orchestrator.process.patience import START_S
from tests.support.cli import drive_sweep, start, status

# Each kind once, in the middle of a training; not while the network is checked, which needs no Ray.
NETWORK = """
import ctypes, os, signal, sys, threading
from pathlib import Path

from torch import nn
from torch.utils.data import DataLoader, Dataset

ONCE = Path({once!r})
LOCK = threading.Lock()


def loop():
    while True:
        pass


def lock():
    with LOCK, LOCK:
        pass


def read():
    os.read(os.pipe()[0], 1)


def stop():
    os.kill(os.getpid(), signal.SIGSTOP)


class Locked(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        with LOCK:
            return index


def loader():  # its worker process waits for a lock that was held when it was forked
    with LOCK:
        for batch in DataLoader(Locked(), num_workers=1):
            pass


def driver():  # stands for a GPU's driver that does not return, and lets no other Python code run
    mutex = ctypes.create_string_buffer(64)
    for _ in range(2):
        ctypes.PyDLL(None).pthread_mutex_lock(mutex)


class Hanging(nn.Sequential):
    def forward(self, images):
        if self.training and "ray" in sys.modules:
            try:
                (ONCE / self.hang.__name__).unlink()
            except FileNotFoundError:
                return super().forward(images)
            self.hang()
        return super().forward(images)


def that_hangs(hang):
    def net(image_shape, num_classes):
        layers = nn.Conv2d(image_shape[0], 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
        network = Hanging(*layers, nn.Linear(32, num_classes))
        network.hang = hang
        return network

    return net


net_loop, net_lock, net_read = that_hangs(loop), that_hangs(lock), that_hangs(read)
net_stop, net_loader, net_driver = that_hangs(stop), that_hangs(loader), that_hangs(driver)
"""
# Kind -> what the process was seen to do.
KINDS = {
    "loop": "it was computing",
    "lock": "it was waiting",
    "read": "it was waiting",
    "stop": "it was stopped by a signal (SIGSTOP)",
    "loader": "it was waiting",
    "driver": "it was waiting",
}
SWEEP = """
name: hangs
dataset: {{name: digits, limit: 200}}
modules_path: {folder}
search: {{model: [{models}]}}
warmup_epochs: 0
prune_iterations: 2
sparsity: 0.9
baseline: none
precision: fp32
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
    models = ", ".join(f"{{module: hanging.net_{kind}}}" for kind in KINDS)
    file.write_text(SWEEP.format(folder=tmp_path, models=models))
    drive_sweep("run", file, "--storage", tmp_path / "healthy", "--quiet")
    once.mkdir()
    for kind in KINDS:
        (once / kind).touch()
    drive_sweep("run", file, "--storage", tmp_path / "runs", "--quiet")
    assert list(once.iterdir()) == []
    assert status("hangs", tmp_path / "runs")["finished"] == 6
    assert digests(tmp_path / "runs") == digests(tmp_path / "healthy")
    log = (tmp_path / "runs/sweeps/hangs/sweep.log").read_text()
    hangs = re.findall(r"hung in .*: it reported nothing for (\d+) s \(limit 10 s\), (it was .*)", log)
    print("\n".join(f"{seconds} s: {state}" for seconds, state in hangs))
    assert len(hangs) == len(KINDS)
    assert all(int(seconds) <= 15 for seconds, _ in hangs)
    for kind, state in KINDS.items():
        place = "" if kind == "stop" else rf" in hanging\.py line \d+ \({kind}\)"
        assert any(re.fullmatch(re.escape(state) + place, seen) for _, seen in hangs), (kind, hangs)
    assert "in __getitem__" in log, "the stacks of the DataLoader's worker"


STUCK = "def net(image_shape, num_classes):\n    while True:\n        pass\n"
COMMANDS = {
    "its checks": ("run", "--quiet"),
    "a probe": ("run", "--quiet", "--set", "precision=auto"),
    "the doctor": ("doctor",),
    "a measured plan": ("plan", "--measure"),
    "one trial": ("trial", "--index", "0"),
}


@pytest.mark.long
def test_code_that_hangs_before_a_sweep_ends_the_command_which_says_where(tmp_path: Path) -> None:
    (tmp_path / "stuck.py").write_text(STUCK)
    file = tmp_path / "hangs.yaml"
    file.write_text(SWEEP.format(folder=tmp_path, models="{module: stuck.net}"))
    running = {}
    for what, (name, *options) in COMMANDS.items():
        running[what] = start(name, file, "--storage", tmp_path / what, *options)
    for what, process in running.items():
        output, _ = process.communicate(timeout=START_S + 180)
        print(f"{what}: {output}")
        assert process.returncode != 0, what
        assert re.search(r"a hang: nothing happened for 12\d s, .* stuck\.py line \d \(net\)", output), output


def digests(storage: Path) -> dict[str, str]:
    return {path.parent.name: json.loads(path.read_text())["model_sha256"] for path in storage.glob("trials/*/result.json")}
