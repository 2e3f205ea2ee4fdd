"""What `plan` shows of a search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.planning.plan import Plan
from orchestrator.search.decision_file import DecisionFile
from orchestrator.search.plans import plan_sweep
from orchestrator.storage.base import Storage
from orchestrator.storage.factory import open_storage
from orchestrator.terminal.plan import plan_facts, print_plan
from tests.support.search_decisions import SEARCH, decisions
from tests.support.sweep_files import load_text


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "runs"), create=True)


def planned(storage: Storage, *options: str, begun: bool = False) -> tuple[Plan, dict[str, Any]]:
    spec = load_text(SEARCH, *options)
    if begun:
        DecisionFile(storage, spec.name).write(decisions(spec))
    plan = plan_sweep(spec, storage)
    return plan, plan_facts(plan, storage)


def printed(storage: Storage, capsys: pytest.CaptureFixture[str], *options: str, begun: bool = False) -> str:
    print_plan(*planned(storage, *options, begun=begun))
    return capsys.readouterr().out


def test_space_rules_and_cost_are_shown_before_anything_runs(storage: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(storage, capsys)
    assert "x: a search that has not begun; 0 of 1 known trials are done" in text
    assert "groups, compared within themselves alone: s0.9, s0.98" in text
    assert "strategy grid: every configuration of 4 in each group, by val/accuracy (max)" in text
    assert "early stopping: asha after 1, 3 sparse epochs; about one of 3 goes on" in text
    assert "seeds: 1 for every configuration, up to 2 for leading ones, until one is better at 95%" in text
    assert "budget: none" in text
    assert "at most: 17 trials, 70 epochs\n" in text  # 2 groups x 4 x 2 seeds x 4 epochs, 2 warm-ups of 1, dense 4
    assert "time: not known: the storage has no finished trials of convnet" in text
    assert "kept weights" in text


def test_facts_have_the_search_and_null_for_what_is_not_known(storage: Storage) -> None:
    _, facts = planned(storage)
    search = facts["search"]
    whole = {"trials": 17, "epochs": 70, "share_of_grid": 1.0, "slot_hours": None}
    assert search["most"] == search["grid"] == whole
    assert search["early_stopping"]["rungs"] == [1, 3]
    assert facts["slot_hours"] is facts["model_bytes"] is None
    assert {one["sparsity"] for one in facts["kept_weights"]} == {0.9, 0.98}
    assert [group["outcome"] for group in search["groups"]] == [None, None]


def test_an_infinite_space_has_no_grid(storage: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("search={training.lr: {min: 0.1, max: 1.0}}", "strategy={name: tpe, configurations: 6}")
    _, facts = planned(storage, *options)
    assert facts["search"]["grid"] is facts["search"]["most"]["share_of_grid"] is None
    text = printed(storage, capsys, *options)
    assert "unlimited" in text
    assert "strategy tpe: 6 configurations in each group" in text
    assert "full grid" not in text


def test_limits_of_the_budget_are_named(storage: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    assert "budget: 2.5 GPU hours and 30 epochs" in printed(storage, capsys, "budget={gpu_hours: 2.5, epochs: 30}")


def test_a_search_that_goes_on_shows_its_groups(storage: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(printed(storage, capsys, begun=True).split())
    assert "x: a search that goes on; 0 of 6 known trials are done, 1 were stopped early" in text
    assert "s0.9: better, recommended is warmup_epochs 0, prune_iterations 1; better than every other" in text
    assert "s0.98: exploring" in text
    _, facts = planned(storage)
    assert facts["search"]["groups"][0]["recommended"] == {"warmup_epochs": 0, "prune_iterations": 1}
    assert facts["reused"] == 0
    assert (facts["search"]["begun"], facts["search"]["finished"], facts["search"]["stopped_early"]) == (5, 4, 1)


def test_a_sweep_without_a_search_has_none(storage: Storage) -> None:
    plan = plan_sweep(load_text(SEARCH.replace("seeds: {first: 1, most: 2}\nearly_stopping: {name: asha}\n", "")), storage)
    assert plan_facts(plan, storage)["search"] is None
