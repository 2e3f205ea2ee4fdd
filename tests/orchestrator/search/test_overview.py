"""What the decisions of a search come to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.search.decisions import Decision
from orchestrator.search.overview import SearchOverview, overview
from tests.support.search_decisions import EASY, SEARCH, configuration, decisions, early_stop, result, trial
from tests.support.sweep_files import load_text


def seen(*, with_importances: bool = False, extra: tuple[Decision, ...] = ()) -> SearchOverview:
    spec = load_text(SEARCH)
    return overview(spec, [*decisions(spec), *extra], with_importances=with_importances)


def test_an_ended_group_has_its_outcome_and_recommendation() -> None:
    easy = seen().groups[0]
    assert (easy.name, easy.outcome) == (EASY, "better")
    assert easy.reason == "better than every other configuration at 95%, with 2 seeds"
    assert easy.best is not None
    assert easy.best.text == "warmup_epochs 0, prune_iterations 1"
    assert easy.best.means == {"val/accuracy": pytest.approx(0.85)}
    assert easy.best.keys == ("e0", "e3")
    assert easy.epochs == 5 + 5 + 2 + 5


def test_a_group_that_goes_on_shows_who_is_ahead() -> None:
    hard = seen().groups[1]
    assert (hard.outcome, hard.best and hard.best.keys) == ("", ("h0",))
    assert "ahead is warmup_epochs 0, prune_iterations 1" in hard.reason


def test_stopped_trials_stand_apart() -> None:
    easy = seen().groups[0]
    ((stopped,), means) = easy.stopped, [one.means for one in easy.configurations]
    assert (stopped.key, stopped.configuration, stopped.rung, stopped.value) == ("e2", 2, 1, 0.2)
    assert means[2] == {}
    assert easy.configurations[2].ruled_out == stopped.reason
    (rung, _) = early_stop(EASY, 1, "e1")
    assert seen(extra=(replace(rung, state="continues"),)).stopped == 1  # a rung alone is no early stop


def test_totals_count_all_groups() -> None:
    whole = seen()
    assert (whole.trials, whole.finished, whole.stopped, whole.epochs) == (5, 4, 1, 22)


def test_importances_need_four_finished_configurations() -> None:
    assert seen(with_importances=True).groups[0].importances == {}
    spec = load_text(SEARCH, "search={warmup_epochs: [0, 1, 2, 4], prune_iterations: [1, 10]}", "sparsity=0.9")
    grid = [(warmup, iterations) for warmup in (0, 1, 2, 4) for iterations in (1, 10)]
    lines = [decisions(spec)[0]]
    for number, (warmup, iterations) in enumerate(grid):
        key = f"k{number}"
        lines += [configuration(EASY, number, warmup, iterations), trial(EASY, number, key)]
        lines.append(result(EASY, number, key, warmup / 10))
    (group,) = overview(spec, lines, with_importances=True).groups
    assert group.importances == pytest.approx({"warmup_epochs": 1, "prune_iterations": 0}, abs=0.05)


def test_equal_values_have_no_importances() -> None:
    spec = load_text(SEARCH, "search={warmup_epochs: [0, 1, 2, 4], prune_iterations: [1, 10]}", "sparsity=0.9")
    lines = [decisions(spec)[0]]
    for number, warmup in enumerate((0, 1, 2, 4)):
        key = f"k{number}"
        lines += [configuration(EASY, number, warmup, 1), trial(EASY, number, key), result(EASY, number, key, 0.5)]
    (group,) = overview(spec, lines, with_importances=True).groups
    assert group.importances == {}
