"""Network checks beside Ray's start: what a process of this machine answers, and what is left to a worker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.errors import UserError
from orchestrator.planning.plan import Plan, make_plan
from orchestrator.preflight.network_process import BackgroundNetworkChecks
from orchestrator.preflight.networks import NetworkChecks, local_reports
from orchestrator.process.import_paths import ROOT
from orchestrator.spec.loader import load_spec
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.factory import open_storage
from orchestrator.storage.local import LocalStorage
from tests.support.cli import wait_for
from trainables.preflight.network_case import cases_of
from trainables.runtime.cache_folder import cache_folder
from trainables.runtime.device import Runtime

NETS = """\
import os, time
from torch import nn


def stuck(image_shape, num_classes):
    time.sleep(600)


def frozen(image_shape, num_classes):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, num_classes))
    net[1].requires_grad_(False)
    return net


def lost(image_shape, num_classes):
    os._exit(9)
"""
SWEEP = """\
name: beside
dataset: {name: digits, limit: 100}
search: {model: [MODELS]}
method: [drive, snip]
sparsity: 0.9
warmup_epochs: 1
training: {epochs: 1, batch_size: 20, lr: 0.05}
precision: fp32
resources: {device: cpu, cpus_per_trial: 1, max_concurrent: 1}
"""
CONVNET, FROZEN, LOST = "convnet", "{module: beside_nets.frozen}", "{module: beside_nets.lost}"
STUCK = "{module: beside_nets.stuck}"


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder and a node's cache of this test alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DRIVE_SWEEP_CACHE", str(tmp_path / "cache"))


def planned(*models: str, options: tuple[str, ...] = ()) -> tuple[SweepFolder, Plan]:
    Path("beside_nets.py").write_text(NETS)
    Path("s.yaml").write_text(SWEEP.replace("MODELS", ", ".join(models)))
    storage = open_storage("runs", create=True)
    plan = make_plan(load_spec("s.yaml", list(options)), storage, hash_data=True)
    return SweepFolder(storage, plan.spec.name), plan


@pytest.mark.process
def test_the_answers_are_those_of_the_same_checks_in_one_process() -> None:
    folder, plan = planned(CONVNET, FROZEN)
    reports = BackgroundNetworkChecks(folder, plan, print).reports(lambda: False)
    expected = local_reports(plan, cases_of(trial.config for trial in plan.trials), Runtime())
    assert [(one.case, one.findings, one.adjusted) for one in reports] == [
        (one.case, one.findings, one.adjusted) for one in expected
    ]
    assert [bool(one.errors) for one in reports] == [False, True]


@pytest.mark.process
def test_what_is_known_is_not_asked_again() -> None:
    folder, plan = planned(CONVNET)
    reports = BackgroundNetworkChecks(folder, plan, print).reports(lambda: False)
    NetworkChecks(folder, plan, "cpu", LocalStorage(str(cache_folder()))).add(reports, None, print)
    assert BackgroundNetworkChecks(folder, plan, print).reports(lambda: False) == []
    folder.storage.remove(folder.file("network_checks.json"))
    assert BackgroundNetworkChecks(folder, plan, print).reports(lambda: False) == []  # the machine remembers


@pytest.mark.parametrize(
    "option", ["precision=auto", "resources.device=cuda", "resources.device=auto", "resources.compile=true"]
)
def test_checks_that_need_a_worker_are_left_to_it(option: str) -> None:
    folder, plan = planned(CONVNET, options=(option,))
    assert BackgroundNetworkChecks(folder, plan, print).reports(lambda: False) == []


@pytest.mark.process
def test_a_lost_process_leaves_everything_to_a_worker() -> None:
    folder, plan = planned(CONVNET, LOST)
    assert BackgroundNetworkChecks(folder, plan, print).reports(lambda: False) == []


@pytest.mark.long
@pytest.mark.process
def test_a_network_that_hangs_is_named_with_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.preflight.network_process.limit_s", lambda stage_timeout: 8.0)
    folder, plan = planned(STUCK)
    place = r"it was waiting in beside_nets\.py line 6 \(stuck\); correct it, or give it more time with stage_timeout"
    with pytest.raises(
        UserError, match=rf"must pass the checks before training, got a hang: nothing happened for 8 s, {place}"
    ):
        BackgroundNetworkChecks(folder, plan, print).reports(lambda: False)
    assert b"in stuck" in (folder.storage.read(folder.file("sweep.log")) or b"")


@pytest.mark.process
def test_a_signal_is_heard_while_the_checks_run() -> None:
    folder, plan = planned(CONVNET)
    with pytest.raises(InterruptedError):
        BackgroundNetworkChecks(folder, plan, print).reports(lambda: True)


def test_a_child_ends_with_the_process_that_asked(tmp_path: Path) -> None:
    Path("endless.py").write_text(
        "import os, time\nfrom orchestrator.process.child import serve\n"
        "def main():\n    serve(lambda question: (open('pid', 'w').write(str(os.getpid())), time.sleep(600)))\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    code = "from orchestrator.process.child import ask; ask('endless', 1)"
    asking = subprocess.Popen([sys.executable, "-c", code], env=environment)
    try:
        pid = int(wait_for(lambda: Path("pid").exists() and Path("pid").read_text()))
    finally:
        asking.kill()
        asking.wait()
    wait_for(lambda: not _lives(pid), timeout_s=20)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
