"""`plan --measure`: a child process times epochs and rounds of the plan's networks."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import UserError
from orchestrator.execution import measuring
from orchestrator.execution.measuring import measure
from orchestrator.planning.estimate import estimate, read_records
from orchestrator.planning.plan import Plan, make_plan
from orchestrator.process.child import ChildError
from orchestrator.spec.loader import load_spec
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.base import Storage
from orchestrator.storage.factory import open_storage
from tests.support.cli import tiny_sweep

WORKERS = ("resources.workers_per_trial=2", "resources.cpus_per_trial=2")
FAILS_ON_THE_SECOND = """
import multiprocessing

from torch import nn


def net(image_shape, num_classes):
    if multiprocessing.parent_process() is not None:
        raise ValueError("not on this worker")
    return nn.Sequential(nn.Conv2d(image_shape[0], 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))
"""


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "runs"), create=True)


def planned(folder: Path, storage: Storage, *options: str) -> Plan:
    return make_plan(load_spec(str(tiny_sweep(folder)), options), storage, hash_data=True)


@pytest.mark.process
@pytest.mark.slow
def test_each_network_and_method_is_timed_and_gives_the_hours(
    tmp_path: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "SECONDS", 0.2)
    monkeypatch.setattr(measuring, "LEAST_SECONDS", 0.05)
    plan = planned(tmp_path, storage)
    found = measure(plan, SweepFolder(storage, "tiny"))
    assert [(one.work.method, one.work.epochs, one.work.rounds) for one in found.timed] == [
        ("drive", 1, 0),
        ("drive", 0, 1),
        ("dense", 1, 0),
        ("dense", 0, 1),
    ]
    (epoch, round_, dense, none) = found.timed
    assert 0.001 < epoch.epoch_seconds < 5
    assert 0.001 < dense.epoch_seconds < 5
    assert 0.0001 < round_.round_seconds < 5
    assert none.round_seconds == 0
    assert (found.device, found.threads) == ("cpu", 1)
    cost = estimate(plan, read_records(plan, storage), found.timed)
    assert cost.hours is not None
    rounds = sum(trial.config.rounds for trial in plan.trials if not trial.config.is_dense)
    mean = (epoch.epoch_seconds + dense.epoch_seconds) / 2
    assert cost.hours * 3600 == pytest.approx(mean * plan.epochs()["shared"] + round_.round_seconds * rounds)


def test_a_network_that_cannot_run_is_an_error(tmp_path: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: object, **options: object) -> None:
        raise ChildError(1, "ValueError: no such layer")

    monkeypatch.setattr(measuring, "ask", fails)
    with pytest.raises(UserError, match="a batch of each network must run on this machine, got ValueError: no such layer"):
        measure(planned(tmp_path, storage), SweepFolder(storage, "tiny"))


def test_trials_of_more_gpus_than_the_machine_has_are_not_measured(
    tmp_path: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers that share a GPU would be slower than in the sweep."""
    monkeypatch.setattr(measuring, "ask", lambda name, request, **options: measuring._respond(request))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    plan = planned(tmp_path, storage, "resources={device: cuda, gpus_per_trial: 4}")
    with pytest.raises(UserError, match=r"got 2 GPUs for a trial that takes 4; measure on a machine with as many") as caught:
        measure(plan, SweepFolder(storage, "tiny"))
    assert caught.value.code == "probe-failed"


@pytest.mark.extended
@pytest.mark.process
@pytest.mark.slow
def test_workers_of_a_trial_are_timed_in_step(tmp_path: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "SECONDS", 0.2)
    monkeypatch.setattr(measuring, "LEAST_SECONDS", 0.05)
    found = measure(planned(tmp_path, storage, *WORKERS), SweepFolder(storage, "tiny"))
    assert [one.work.method for one in found.timed] == ["drive", "drive", "dense", "dense"]
    assert all(one.seconds > 0 for one in found.timed[:3])
    assert (found.workers, found.threads) == (2, 1)
    assert ", 2 workers of 1 thread)" in found.where


@pytest.mark.process
@pytest.mark.slow
def test_a_worker_that_fails_ends_the_measurement(tmp_path: Path, storage: Storage) -> None:
    (tmp_path / "failing_net.py").write_text(FAILS_ON_THE_SECOND)
    plan = planned(tmp_path, storage, *WORKERS, "model={module: failing_net.net}", f"modules_path={tmp_path}")
    with pytest.raises(UserError, match=r"machine, got worker 2 of 2: model: .* got ValueError: not on this"):
        measure(plan, SweepFolder(storage, "tiny"))
