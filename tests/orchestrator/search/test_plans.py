"""The plan of a search: trials that have begun, baselines, names that stay."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import UserError
from orchestrator.search.decided_trials import TrialNames, baselines, decided_trials
from orchestrator.search.decision_file import DecisionFile
from orchestrator.search.decisions import Decision, Kind
from orchestrator.search.plans import plan_sweep
from orchestrator.search.settings import SearchSettings
from orchestrator.storage.base import Storage
from orchestrator.storage.factory import open_storage
from tests.support.recorded_grid import METRIC
from tests.support.synthetic_grid import search_of, spec_with

KEYS: dict[str, Any] = {
    "seeds": {"first": 2, "most": 4},
    "baseline": "dense",
    "search": {"sparsity": [0.9, 0.98], "training.lr": [0.1, 0.01]},
}
LR_RANGE: dict[str, Any] = {
    "seeds": {"first": 1, "most": 1},
    "strategy": {"name": "random", "configurations": 30},
    "search": {"training.lr": {"min": 0.001, "max": 0.1, "log": True}},
}


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "runs"), create=True)


def test_baselines_are_those_of_the_first_seeds_and_the_groups() -> None:
    configs = baselines(spec_with(KEYS))
    assert [(one.method, one.training.lr, one.seed) for one in configs] == [
        ("dense", lr, seed) for lr in (0.1, 0.01) for seed in (0, 1)
    ]
    assert baselines(spec_with({**KEYS, "baseline": "none"})) == []


def test_baselines_have_the_value_of_the_file() -> None:
    spec = spec_with({**LR_RANGE, "baseline": "dense", "training": {"epochs": 4, "lr": 0.05}})
    assert [(one.training.lr, one.seed) for one in baselines(spec)] == [(0.05, 0)]


def test_method_dense_has_baselines_though_none_are_added() -> None:
    spec = spec_with({**KEYS, "baseline": "none", "method": ["dense", "drive"]})
    assert len(baselines(spec)) == 4
    assert {one.method for one in baselines(spec)} == {"dense"}


def test_plan_has_the_baselines_and_the_begun_trials() -> None:
    spec = spec_with(KEYS)
    search = search_of(spec)
    begun = [one for one in (search.next_trial() for _ in range(5)) if one is not None]
    assert decided_trials(spec, search.decisions) == [*baselines(spec), *(one.config for one in begun)]
    assert decided_trials(spec, []) == baselines(spec)


def test_plan_follows_the_decisions_of_the_sweep(storage: Storage) -> None:
    spec = spec_with(LR_RANGE)
    assert plan_sweep(spec, storage).trials == ()
    log = DecisionFile(storage, spec.name)
    search = search_of(spec, log)
    begun = search.next_trial()
    assert begun is not None
    plan = plan_sweep(spec, storage)
    assert [one.config for one in plan.trials] == [begun.config]
    assert not plan.settled
    with pytest.raises(UserError, match="was searched with another"):
        plan_sweep(spec_with({**LR_RANGE, "strategy": {"name": "tpe", "configurations": 3}}), storage)


def test_sweep_that_is_no_search_is_planned_as_a_grid(storage: Storage) -> None:
    spec = spec_with({"search": {"seed": [0]}})
    assert len(plan_sweep(spec, storage).trials) == 9
    assert plan_sweep(spec, storage).settled


def test_plan_is_settled_when_every_group_has_ended(storage: Storage) -> None:
    spec = spec_with(LR_RANGE)
    DecisionFile(storage, spec.name).write(
        [SearchSettings.of(spec).decision(), Decision(kind=Kind.END, group="s0.9", state="explored")]
    )
    assert plan_sweep(spec, storage).settled


@pytest.mark.parametrize("keys", [KEYS, LR_RANGE, {**LR_RANGE, "method": ["drive", "snip"]}])
def test_names_are_unique_and_stay_as_trials_join(keys: dict[str, Any], storage: Storage) -> None:
    spec = spec_with(keys)
    log = DecisionFile(storage, spec.name)
    search = search_of(spec, log)
    names: dict[str, str] = {}
    generator = random.Random(0)
    while len(names) < 30 and (begun := search.next_trial()) is not None:
        names[begun.key] = TrialNames(spec).of(begun.config)
        search.finish(begun.key, {METRIC: generator.random()}, 1.0)
    assert len(set(names.values())) == len(names) == 30
    plan = plan_sweep(spec, storage, hash_data=True)
    assert set(names.values()) <= {trial.name for trial in plan.trials}
    assert len({trial.name for trial in plan.trials}) == len(plan.trials)


def test_lengths_of_warmups_are_those_of_the_space() -> None:
    assert TrialNames(spec_with()).warmup_lengths == (0, 1, 2)
    tpe = {"name": "tpe", "configurations": 3}
    ranged = spec_with({"strategy": tpe, "search": {"warmup_epochs": {"min": 0, "max": 8, "step": 4}}})
    assert TrialNames(ranged).warmup_lengths == (0, 4, 8)
    assert TrialNames(spec_with({"warmup_epochs": 3, "search": {"warmup_epochs": None}})).warmup_lengths == ()
