"""A search over several groups: turns, results that exist, shared trials, the budget, the log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from orchestrator.scheduling.early_stopping import asha
from orchestrator.search.decisions import Decision, Kind, MemoryLog
from orchestrator.search.search import Search
from tests.support.recorded_grid import METRIC
from tests.support.synthetic_grid import EPOCHS, key_of, of_kind, run_all, search_of, spec_with, timeless
from trainables.config.trial import TrialConfig

pytestmark = pytest.mark.usefixtures("grid_in_order")

ONE_SEED = {"seeds": {"first": 1, "most": 1}}
TWO_GROUPS = {**ONE_SEED, "search": {"sparsity": [0.9, 0.98]}}
# Groups by `rewind`, configurations by `sanity.reinitialize`: reinitialised trials ignore the rewind, so groups share them.
SHARED: dict[str, Any] = {
    **ONE_SEED,
    "search": {
        "warmup_epochs": [2],
        "prune_iterations": [1],
        "rewind": ["none", "init"],
        "sanity.reinitialize": [False, True],
    },
    "strategy": {"name": "grid", "axes": ["warmup_epochs", "prune_iterations", "sanity.reinitialize"]},
}


def accuracy(config: TrialConfig) -> float:
    return 0.5 + 0.01 * config.warmup_epochs - 0.001 * config.prune_iterations


class StrictLog(MemoryLog):
    """Says whether a decision was written before it took effect."""

    search: Search | None = None

    def write(self, decisions: Sequence[Decision]) -> None:
        if self.search is not None:
            assert len(self.search.decisions) == len(self.decisions)
        super().write(decisions)


def test_groups_take_turns() -> None:
    groups = [one.group for one in run_all(search_of(spec_with(TWO_GROUPS)), accuracy)]
    assert groups == ["s0.9", "s0.98"] * 9


def test_decision_is_written_before_and_announced_after_effect() -> None:
    log = StrictLog()
    search = search_of(spec_with(ONE_SEED), log)
    log.search = search
    announced: list[Decision] = []
    search.on_decision = lambda decision: announced.append(decision) if log.decisions[-1] == decision else None
    run_all(search, accuracy)
    assert announced == log.decisions[1:]
    assert search.decisions == log.decisions


def test_results_that_exist_cost_nothing_and_are_learned() -> None:
    spec = spec_with({**ONE_SEED, "budget": {"epochs": 20, "configurations": 2}})
    whole = run_all(search_of(spec_with(ONE_SEED)), accuracy)
    finished = {one.key: {METRIC: accuracy(one.config), "other": 1.0} for one in whole[2:]}
    search = search_of(spec, existing=finished.get)
    trials = run_all(search, accuracy, seconds=1.0)
    assert [one.is_finished for one in trials] == [False] * 2 + [True] * 7
    assert (search.meter.epochs, search.meter.configurations) == (2 * EPOCHS, 2)
    results = of_kind(search, Kind.RESULT)
    assert [one.values for one in results] == [{METRIC: accuracy(one.config)} for one in whole]
    assert [one.epoch for one in results] == [EPOCHS] * 2 + [0] * 7
    assert search.groups[0].end is not None
    assert search.groups[0].end.state == "explored"


def test_shared_trial_of_two_groups_runs_and_costs_once() -> None:
    search = search_of(spec_with(SHARED))
    trials = run_all(search, accuracy, seconds=10.0)
    keys = [one.key for one in trials]
    assert len(search.groups) == 2
    assert len(keys) == len(set(keys)) == 3
    assert all(len(group.by_key) == 2 for group in search.groups)
    shared = next(key for key in keys if len(search.trials(key)) == 2)
    assert [one.values for one in search.trials(shared)] == [{METRIC: 0.519}] * 2
    reinitialized = [one for one in trials if one.key == shared]
    assert [one.config.sanity.reinitialize for one in reinitialized] == [True]
    # one warm-up of two epochs, three trainings
    assert search.meter.epochs == 2 + 3 * EPOCHS
    assert sum(one.seconds or 0 for one in of_kind(search, Kind.RESULT)) == 30.0
    assert search.is_done


def test_trial_of_another_group_is_not_begun_again() -> None:
    search = search_of(spec_with(SHARED))
    begun = []
    while (trial := search.next_trial()) is not None:
        begun.append(trial)
    assert len({one.key for one in begun}) == len(begun) == 3
    shared = next(one.key for one in begun if len(search.trials(one.key)) == 2)
    search.fail(shared, "lost")
    assert [one.state for one in search.trials(shared)] == ["failed"] * 2
    search.retry(shared)
    for key in {one.key for one in begun}:
        search.finish(key, {METRIC: 0.9}, 1.0)
    assert [one.state for one in search.trials(shared)] == ["finished"] * 2
    assert search.meter.epochs == 2 + 3 * EPOCHS
    assert sum(one.seconds or 0 for one in of_kind(search, Kind.RESULT)) == 3.0


def test_shared_trial_stops_only_if_every_group_wants_it() -> None:
    spec = spec_with({**SHARED, "early_stopping": {"name": "asha", "reduction": 2}})
    search = search_of(spec, stopper_of=lambda group: asha("max", 1, 2, EPOCHS))
    begun = []
    while (trial := search.next_trial()) is not None:
        begun.append(trial)
    shared = next(one.key for one in begun if len(search.trials(one.key)) == 2)
    first, second = (one.key for one in begun if one.key != shared)
    assert search.at_rung(first, 1, 0.9) == ""  # only the first group has a better trial
    assert search.at_rung(shared, 1, 0.5) == ""
    assert search.at_rung(second, 1, 0.1) != ""
    assert [bool(one.stop_reason) for one in search.trials(shared)] == [True, False]
    search.finish(shared, {METRIC: 0.6}, 1.0)
    assert [one.state for one in search.trials(shared)] == ["finished"] * 2
    assert len(of_kind(search, Kind.RUNG)) == 4


def early_stopped(rewinds: Sequence[str]) -> tuple[Search, str]:
    """A search whose shared trial was stopped early in the first group, where another is better."""
    values = {**SHARED, "search": {**SHARED["search"], "sanity.reinitialize": [True, False], "rewind": list(rewinds)}}
    spec = spec_with({**values, "early_stopping": {"name": "asha", "reduction": 2}})
    search = search_of(spec, stopper_of=lambda group: asha("max", 1, 2, EPOCHS))
    group = search.groups[0]
    for _ in range(2):
        search._take(group.next_steps())  # a configuration
        search._take(group.next_steps())  # its trial
    shared, better = group.by_key
    assert not search.at_rung(better, 1, 0.9)
    assert search.at_rung(shared, 1, 0.5)
    search.stop(shared, 1, 1.0)
    return search, shared


def test_trial_stopped_in_one_group_goes_on_in_another() -> None:
    search, shared = early_stopped(["none", "init"])
    used = search.meter.epochs
    begun = search.next_trial()
    assert begun is not None
    assert (begun.key, begun.is_finished) == (shared, False)
    assert search.meter.running[shared] == EPOCHS - 1, "what its checkpoint lacks"
    assert search.stop_reason(shared) == ""
    assert [one.group for one in of_kind(search, Kind.RUNG) if one.key == shared] == [one.group.name for one in search.groups]
    search.finish(shared, {METRIC: 0.6}, 1.0)
    assert [one.state for one in search.trials(shared)] == ["stopped", "finished"]
    assert search.meter.epochs == used + EPOCHS - 1


def test_budget_ends_all_groups_and_lets_running_trials_finish() -> None:
    search = search_of(spec_with({**TWO_GROUPS, "budget": {"epochs": 12}}))
    running = []
    while (begun := search.next_trial()) is not None:
        running.append(begun)
    assert len(running) == 3  # 4 epochs each, with no warm-up yet
    assert [one.kind for one in of_kind(search, Kind.BUDGET, Kind.END)] == [Kind.BUDGET]
    for one in running:
        search.finish(one.key, {METRIC: 0.5}, 1.0)
    assert search.next_trial() is None
    assert search.is_done
    assert len(of_kind(search, Kind.BUDGET)) == 1
    assert {one.state for one in of_kind(search, Kind.END)} == {"budget"}


def test_budget_of_hours_counts_the_time_of_all_drivers() -> None:
    spec = spec_with({**ONE_SEED, "budget": {"hours": 1}})
    now, log = [0.0], MemoryLog()
    search = search_of(spec, log, elapsed=lambda: now[0])
    begun = search.next_trial()
    assert begun is not None
    now[0] = 400.0
    search.finish(begun.key, {METRIC: 0.5}, 400.0)  # 100 s an epoch
    now[0] = 3150.0
    again = search_of(spec, log, elapsed=lambda: now[0])
    assert again.next_trial() is not None  # 3,150 s and 4 epochs
    now[0] = 3250.0
    assert again.next_trial() is None
    assert "budget.hours" in again.closed
    assert log.decisions[-1].elapsed_s == 3250.0


def test_budget_counts_warmups_once_and_trained_epochs_only() -> None:
    spec = spec_with(
        {**ONE_SEED, "early_stopping": {"name": "asha"}, "search": {"warmup_epochs": [2], "prune_iterations": [1, 10]}}
    )
    search = search_of(spec, stopper_of=lambda group: asha("max", 1, 3, EPOCHS))
    first, second = search.next_trial(), search.next_trial()
    assert first is not None
    assert second is not None
    search.at_rung(first.key, 1, 0.9)
    assert search.at_rung(second.key, 1, 0.1)
    search.stop(second.key, 1, 1.0)
    search.finish(first.key, {METRIC: 0.9}, 1.0)
    search.finish(first.key, {METRIC: 0.9}, 1.0)  # told twice
    assert [one.epoch for one in of_kind(search, Kind.RESULT)] == [1, 2 + EPOCHS]
    assert search.meter.epochs == 2 + EPOCHS + 1
    assert search.meter.running == {}


def test_failed_trial_counts_what_it_has_trained() -> None:
    spec = spec_with({**ONE_SEED, "search": {"warmup_epochs": [2], "prune_iterations": [1]}})
    search = search_of(spec, log := MemoryLog())
    begun = search.next_trial()
    assert begun is not None
    search.fail(begun.key, "lost", epochs=1, seconds=10.0)
    assert (search.meter.epochs, search.meter.seconds_per_epoch) == (2 + 1, [10.0])
    again = search_of(spec, log)
    again.retry(begun.key)
    assert again.meter.running == {begun.key: EPOCHS - 1}
    again.finish(begun.key, {METRIC: 0.9}, 9.0)
    assert again.meter.epochs == 2 + EPOCHS
    assert again.meter.seconds_per_epoch == [10.0, 9.0 / (EPOCHS - 1)]


def test_speed_is_that_of_the_epochs_in_which_it_was_measured() -> None:
    """A shared warm-up has a stage of its own; without sharing the trial trains it."""
    for shared, per_epoch in ((True, 12.0 / EPOCHS), (False, 12.0 / (2 + EPOCHS))):
        spec = spec_with({**ONE_SEED, "search": {"warmup_epochs": [2], "prune_iterations": [1]}})
        search = search_of(spec)
        search.warmups.shared = shared
        run_all(search, accuracy, seconds=12.0)
        assert search.meter.seconds_per_epoch == [per_epoch]


def test_unfinished_trials_of_an_interrupted_search_are_known() -> None:
    log = MemoryLog()
    search = search_of(spec_with(ONE_SEED), log)
    first, second = search.next_trial(), search.next_trial()
    assert first is not None
    assert second is not None
    search.finish(first.key, {METRIC: 0.5}, 1.0)
    again = search_of(spec_with(ONE_SEED), log)
    assert [trial.key for _, trial in again.unfinished()] == [second.key]
    assert key_of(next(again.unfinished())[1].config) == second.key
    assert again.meter.running == {second.key: EPOCHS}
    assert timeless(again.decisions) == timeless(search.decisions)


@pytest.mark.parametrize("keys", [ONE_SEED, TWO_GROUPS])
def test_summary_says_what_each_group_does(keys: dict[str, Any]) -> None:
    search = search_of(spec_with(keys))
    assert all(text.startswith("exploring: 0 configurations") for text in search.summary().values())
    begun = search.next_trial()
    assert begun is not None
    search.finish(begun.key, {METRIC: 0.5}, 1.0)
    assert "ahead is warmup_epochs 0, prune_iterations 1 with val/accuracy 0.5000" in search.summary()[begun.group]
    run_all(search, accuracy)
    assert all(text.startswith("explored: 9 configurations, 0 ruled out") for text in search.summary().values())
    assert set(search.summary()) == {group.group.name for group in search.groups}
