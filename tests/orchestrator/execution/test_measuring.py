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
