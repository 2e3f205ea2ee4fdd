"""The estimate of a plan: each trial is judged by finished trials of its own network and data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.planning.durations import Timed, Work, network_of
from orchestrator.planning.entries import PlannedTrial
from orchestrator.planning.estimate import Estimate, estimate, read_records
from orchestrator.planning.plan import Plan, make_plan
from orchestrator.spec.loader import load_spec
from orchestrator.spec.schema import Resources
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


def record(storage: Storage, trial: PlannedTrial, key: str, seconds: float, model_bytes: int, workers: int = 1) -> None:
    """A finished trial of another sweep with the network and data of this one."""
    metrics = {"cost/total_seconds": seconds}
    result = {"config": canonical(trial.config), "metrics": metrics, "model_sha256": "0" * 64, "model_bytes": model_bytes}
    fingerprint = {} if workers == 1 else {"workers": workers, "sync_batch_norm": True}
    write_result(storage, key, result | {"fingerprints": [fingerprint]})


def of_model(plan: Plan, model: str) -> Plan:
    return replace(plan, trials=tuple(trial for trial in plan.trials if trial.config.model == model))


def estimated(plan: Plan, storage: Storage) -> Estimate:
    return estimate(plan, read_records(plan, storage))


def test_estimate_is_unknown_without_finished_trials(plan: Plan, storage: Storage) -> None:
    assert estimated(plan, storage) == Estimate(hours=None, unknown=("convnet", "resnet20"))


def test_estimate_uses_the_trials_of_each_network(plan: Plan, storage: Storage) -> None:
    small, large = of_model(plan, "convnet"), of_model(plan, "resnet20")
    assert len(small.trials) == len(large.trials) > 1
    epochs = small.trials[0].config.trained_epochs
    record(storage, small.trials[0], "a" * 16, seconds=2.0 * epochs, model_bytes=100)
    record(storage, small.trials[0], "b" * 16, seconds=4.0 * epochs, model_bytes=300)
    record(storage, large.trials[0], "c" * 16, seconds=90.0 * large.trials[0].config.trained_epochs, model_bytes=5000)
    cost = estimated(plan, storage)
    seconds = 3.0 * small.epochs()["shared"] + 90.0 * large.epochs()["shared"]
    assert cost.hours == pytest.approx(seconds / 3600)
    assert cost.hours_range is None  # of two or one record
    assert cost.records == 3


def test_trials_of_another_number_of_workers_tell_no_time(plan: Plan, storage: Storage) -> None:
    """Nobody knows how much of it each worker waits for the others."""
    first = of_model(plan, "convnet").trials[0]
    several = plan.spec.model_copy(update={"resources": Resources(device="cpu", workers_per_trial=2)})
    of_two = replace(of_model(plan, "convnet"), spec=several)
    record(storage, first, "a" * 16, seconds=7.0 * first.config.trained_epochs, model_bytes=10)
    assert estimated(of_two, storage).hours is None
    record(storage, first, "b" * 16, seconds=5.0 * first.config.trained_epochs, model_bytes=10, workers=2)
    of_one = of_model(plan, "convnet")
    epochs = of_one.epochs()["shared"]
    assert estimated(of_one, storage).hours == pytest.approx(7.0 * epochs / 3600)
    assert estimated(of_two, storage).hours == pytest.approx(5.0 * epochs / 3600)


def test_an_untried_network_is_not_judged_by_others(plan: Plan, storage: Storage) -> None:
    first = of_model(plan, "convnet").trials[0]
    record(storage, first, "a" * 16, seconds=7.0 * first.config.trained_epochs, model_bytes=10)
    assert estimated(plan, storage) == Estimate(hours=None, unknown=("resnet20",))


def test_another_batch_size_is_another_network(plan: Plan, storage: Storage) -> None:
    small = of_model(plan, "convnet")
    first = small.trials[0]
    other = replace(first, config=replace(first.config, training=replace(first.config.training, batch_size=10)))
    record(storage, other, "a" * 16, seconds=7.0, model_bytes=10)
    assert estimated(small, storage).hours is None


def test_several_records_give_a_range(plan: Plan, storage: Storage) -> None:
    small = of_model(plan, "convnet")
    for digit, seconds in zip("abcdef", (2.0, 2.2, 1.9, 2.1, 2.0, 2.3), strict=True):
        record(storage, small.trials[0], digit * 16, seconds=seconds * small.trials[0].config.trained_epochs, model_bytes=1)
    cost = estimated(small, storage)
    assert cost.hours is not None
    assert cost.hours_range is not None
    low, high = cost.hours_range
    assert 0.8 * cost.hours < low < cost.hours < high < 1.25 * cost.hours
    assert cost.devices == ("an unknown device",)


def test_a_measurement_counts_instead_of_records(plan: Plan, storage: Storage) -> None:
    small = of_model(plan, "convnet")
    record(storage, small.trials[0], "a" * 16, seconds=700.0, model_bytes=1)
    network, dense = network_of(small.trials[0].config), sum(trial.config.is_dense for trial in small.trials)
    measured = [
        Timed(work=Work(network=network, method="drive", epochs=1), seconds=2.0, epoch_seconds=2.0),
        Timed(work=Work(network=network, method="drive", epochs=0, rounds=1), seconds=0.5, epoch_seconds=0, round_seconds=0.5),
    ]
    rounds = sum(trial.config.rounds for trial in small.trials if not trial.config.is_dense)
    cost = estimate(small, read_records(small, storage), measured)
    assert dense == 1
    assert cost.hours == pytest.approx((2.0 * small.epochs()["shared"] + 0.5 * rounds) / 3600)
    assert (cost.records, cost.hours_range) == (0, None)


def test_warmups_that_are_not_shared_are_trained_by_each_trial(plan: Plan, storage: Storage) -> None:
    small = of_model(plan, "convnet")
    small = replace(small, spec=small.spec.model_copy(update={"share_warmups": False}))
    record(storage, small.trials[0], "a" * 16, seconds=small.trials[0].config.trained_epochs, model_bytes=1)
    assert estimated(small, storage).hours == pytest.approx(small.epochs()["unshared"] / 3600)
