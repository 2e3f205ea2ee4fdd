"""What may change between two runs of a search, and what makes it another one."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.errors import UserError
from orchestrator.search.decisions import Decision, Kind
from orchestrator.search.settings import SearchSettings, is_settled
from tests.support.synthetic_grid import spec_with
from trainables.records.checked_lines import read_checked_line

TPE = {"name": "tpe", "configurations": 9}
BASE: dict[str, Any] = {
    "strategy": TPE,
    "seeds": {"first": 1, "most": 3},
    "early_stopping": {"name": "asha"},
    "budget": {"epochs": 100},
}
OTHER_COURSES: dict[str, dict[str, Any]] = {
    "values of an axis": {"search": {"warmup_epochs": [0, 1]}},
    "a range": {"search": {"warmup_epochs": {"min": 0, "max": 2}}},
    "another group": {"search": {"sparsity": [0.9, 0.98]}},
    "sampler": {"strategy": {**TPE, "name": "random"}},
    "seed of the sampler": {"strategy": {**TPE, "seed": 1}},
    "first points": {"strategy": {**TPE, "start_with": [{"warmup_epochs": 1}]}},
    "lessons": {"strategy": {**TPE, "learn_from": ["other"]}},
    "objective": {"objective": "train/accuracy"},
    "direction": {"objective": {"val/accuracy": "min"}},
    "early stopping": {"early_stopping": {"name": "median"}},
    "no early stopping": {"early_stopping": None},
    "grace": {"early_stopping": {"name": "asha", "grace_epochs": 2}},
    "first seeds": {"seeds": {"first": 2, "most": 3}},
    "training": {"training": {"epochs": 5}},
    "model": {"model": "lenet300"},
}
OTHER_LIMITS: dict[str, dict[str, Any]] = {
    "configurations": {"strategy": {**TPE, "configurations": 10}},
    "further seeds": {"seeds": {"first": 1, "most": 4}},
    "confidence": {"seeds": {"first": 1, "most": 3, "confidence": 0.9}},
    "indifference": {"seeds": {"first": 1, "most": 3, "indifference": 0.5}},
    "budget": {"budget": {"hours": 2}},
    "no budget": {"budget": None},
}
NEITHER: dict[str, dict[str, Any]] = {
    "resources": {"resources": {"device": "cpu"}},
    "tracking": {"tracking": {"models": "none"}},
    "axes that are the default": {"strategy": {**TPE, "axes": ["warmup_epochs", "prune_iterations"]}},
}


def settings(**keys: Any) -> SearchSettings:
    return SearchSettings.of(spec_with(BASE | keys))


@pytest.mark.parametrize("change", OTHER_COURSES)
def test_another_course_is_another_search(change: str) -> None:
    other = settings(**OTHER_COURSES[change])
    assert other.course != settings().course
    with pytest.raises(UserError, match="was searched with another") as error:
        other.require_same_course([settings().decision()])
    assert error.value.code == "search-changed"


@pytest.mark.parametrize("change", OTHER_LIMITS)
def test_other_limits_take_the_search_on(change: str) -> None:
    other = settings(**OTHER_LIMITS[change])
    assert other.course == settings().course
    assert other.limits != settings().limits
    other.require_same_course([settings().decision()])


@pytest.mark.parametrize("change", NEITHER)
def test_what_decides_nothing_may_change(change: str) -> None:
    assert settings(**NEITHER[change]).decision() == settings().decision()


def test_settings_are_the_same_after_a_line() -> None:
    line = settings().decision().to_line()
    assert Decision.from_values(read_checked_line(line)) == settings().decision()


SMALL, LARGE = (settings(budget={"epochs": limit}).decision() for limit in (100, 200))
END, BUDGET = Decision(kind=Kind.END, group="s0.9"), Decision(kind=Kind.BUDGET)
TRIAL, RESULT = (Decision(kind=kind, group="s0.9", key="a") for kind in (Kind.TRIAL, Kind.RESULT))


@pytest.mark.parametrize(
    ("decisions", "kept", "settled"),
    [
        ([], [], False),
        ([SMALL, TRIAL, RESULT, BUDGET, END], [SMALL, TRIAL, RESULT, BUDGET, END], True),
        ([SMALL, TRIAL, RESULT, BUDGET], [SMALL, TRIAL, RESULT, BUDGET], False),
        # ended under other limits: it goes on
        ([LARGE, TRIAL, RESULT, BUDGET, END], [LARGE, TRIAL, RESULT], False),
        ([LARGE, TRIAL, END, SMALL, RESULT, END], [LARGE, TRIAL, SMALL, RESULT, END], True),
        # limits that were raised and taken back: what was learned meanwhile counts, so the old end is none
        ([SMALL, TRIAL, END, LARGE, RESULT, END, SMALL], [SMALL, TRIAL, LARGE, RESULT, SMALL], False),
        # a trial that failed ran again after the end
        ([SMALL, TRIAL, RESULT, END, RESULT], [SMALL, TRIAL, RESULT, END, RESULT], False),
    ],
)
def test_end_holds_until_the_limits_change_or_a_trial_runs_again(
    decisions: list[Decision], kept: list[Decision], settled: bool
) -> None:
    spec = spec_with(BASE)
    assert SearchSettings.of(spec).current(decisions) == kept
    assert is_settled(spec, decisions) is settled


def test_search_is_settled_when_all_its_groups_have_ended() -> None:
    spec = spec_with({**BASE, "search": {"sparsity": [0.9, 0.98]}})
    start = SearchSettings.of(spec).decision()
    assert not is_settled(spec, [start, END])
    assert is_settled(spec, [start, END, Decision(kind=Kind.END, group="s0.98")])
