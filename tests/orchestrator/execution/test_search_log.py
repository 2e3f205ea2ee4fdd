"""Decisions of a search as lines of the sweep's log."""

from __future__ import annotations

import pytest

from orchestrator.execution.search_run import LOGGED, describe
from orchestrator.search.decisions import Decision, Kind
from tests.support.search_decisions import EASY

VALUES = {"warmup_epochs": 2, "prune_iterations": 10}


@pytest.mark.parametrize(
    ("decision", "line"),
    [
        (
            Decision(kind=Kind.CONFIGURATION, group=EASY, configuration=3, values=VALUES, reason="tpe"),
            "s0.9 tries configuration 3 with warmup_epochs 2, prune_iterations 10: tpe",
        ),
        (Decision(kind=Kind.RULED_OUT, group=EASY, values={"1": -0.1}, reason="worse"), "s0.9 rules out: worse"),
        (Decision(kind=Kind.BEHIND, group=EASY, values={"1": None}, reason="behind"), "s0.9 gives no more seeds: behind"),
        (Decision(kind=Kind.BUDGET, reason="60 of 60 epochs"), "the search begins nothing new: 60 of 60 epochs"),
        (
            Decision(kind=Kind.END, group=EASY, configuration=3, values=VALUES, state="better", reason="at 95%"),
            "s0.9 ends (better), recommended is configuration 3 with warmup_epochs 2, prune_iterations 10: at 95%",
        ),
        (Decision(kind=Kind.END, group=EASY, state="nothing", reason="all failed"), "s0.9 ends (nothing): all failed"),
    ],
)
def test_a_decision_is_a_sentence_with_its_reason(decision: Decision, line: str) -> None:
    assert describe(decision) == line
    assert decision.kind in LOGGED


def test_rungs_and_results_are_not_logged() -> None:
    assert not {Kind.RUNG, Kind.RESULT, Kind.TRIAL, Kind.START, Kind.LEARNED} & set(LOGGED)
