"""The estimate of a plan: each trial is judged by finished trials of its own network and data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.planning.entries import PlannedTrial
from orchestrator.planning.estimate import Estimate, estimate
from orchestrator.planning.plan import Plan, make_plan
from orchestrator.spec.loader import load_spec
from orchestrator.storage.base import Storage
from orchestrator.storage.factory import open_storage
from tests.support.cli import tiny_sweep
from tests.support.trials import write_result
from trainables.config.keys import canonical


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "runs"), create=True)


@pytest.fixture
def plan(tmp_path: Path, storage: Storage) -> Plan:
    """Trials of two networks, each with its own warm-ups."""
    return make_plan(load_spec(str(tiny_sweep(tmp_path)), ["search.model=[convnet, resnet20]"]), storage)


def record(storage: Storage, trial: PlannedTrial, key: str, seconds: float, model_bytes: int) -> None:
    """A finished trial of another sweep with the network and data of this one."""
    metrics = {"cost/total_seconds": seconds}
    result = {"config": canonical(trial.config), "metrics": metrics, "model_sha256": "0" * 64, "model_bytes": model_bytes}
    write_result(storage, key, result)


def of_model(plan: Plan, model: str) -> Plan:
    return replace(plan, trials=tuple(trial for trial in plan.trials if trial.config.model == model))


def test_estimate_is_unknown_without_finished_trials(plan: Plan, storage: Storage) -> None:
    assert estimate(plan, storage) == Estimate(hours=None, model_bytes=None)


def test_estimate_uses_the_trials_of_each_network(plan: Plan, storage: Storage) -> None:
    small, large = of_model(plan, "convnet"), of_model(plan, "resnet20")
    assert len(small.trials) == len(large.trials) > 1
    epochs = small.trials[0].config.trained_epochs
    record(storage, small.trials[0], "a" * 16, seconds=2.0 * epochs, model_bytes=100)
    record(storage, small.trials[0], "b" * 16, seconds=4.0 * epochs, model_bytes=300)
    record(storage, large.trials[0], "c" * 16, seconds=90.0 * large.trials[0].config.trained_epochs, model_bytes=5000)
    cost = estimate(plan, storage)
    seconds = 3.0 * small.epochs()["shared"] + 90.0 * large.epochs()["shared"]
    assert cost.hours == pytest.approx(seconds / 3600)
    assert cost.model_bytes == 200 * len(small.trials) + 5000 * len(large.trials)


def test_estimate_of_an_untried_network_uses_the_others(plan: Plan, storage: Storage) -> None:
    first = of_model(plan, "convnet").trials[0]
    record(storage, first, "a" * 16, seconds=7.0 * first.config.trained_epochs, model_bytes=10)
    cost = estimate(plan, storage)
    assert cost.hours == pytest.approx(7.0 * plan.epochs()["shared"] / 3600)
    assert cost.model_bytes == 10 * len(plan.trials)
