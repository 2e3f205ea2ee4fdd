"""Trials of a search begin again under other keys after a file of the user's has changed; its decisions stay."""

from __future__ import annotations

from orchestrator.search.decisions import Kind, MemoryLog
from orchestrator.search.overview import overview
from orchestrator.search.records import FAILED, FINISHED, RUNNING
from orchestrator.search.search import Search
from tests.support.recorded_grid import METRIC
from tests.support.synthetic_grid import run_all, search_of, spec_with
from trainables.config.trial import TrialConfig

SPEC = spec_with({"seeds": {"first": 1, "most": 1}, "budget": {"epochs": 10_000}})


def accuracy(config: TrialConfig) -> float:
    return 0.5 + 0.01 * config.warmup_epochs - 0.001 * config.prune_iterations


def cut_off(log: MemoryLog) -> tuple[Search, list[str]]:
    """A search in which one trial is finished, one has failed and one runs, and their keys."""
    search, keys = search_of(SPEC, log), []
    for end in (FINISHED, FAILED, RUNNING):
        begun = search.next_trial()
        assert begun is not None
        keys.append(begun.key)
        if end == FINISHED:
            search.finish(begun.key, {METRIC: accuracy(begun.config)}, 1.0)
        elif end == FAILED:
            search.fail(begun.key, "boom", 1, 1.0)
    return search, keys


def states(search: Search) -> dict[str, str]:
    return {trial.key: trial.state for group in search.groups for trial in group.trials()}


def test_trials_are_known_by_their_present_keys_alone() -> None:
    log = MemoryLog()
    _, (finished, failed, running) = cut_off(log)
    again = search_of(SPEC, log)
    again.begin_again({failed: "new-1", running: "new-2"})
    assert states(again) == {finished: FINISHED, "new-1": RUNNING, "new-2": RUNNING}
    assert again.trials(failed) == again.trials(running) == []
    assert set(again.meter.running) == {"new-1", "new-2"}
    assert again.meter.configurations == 3
    assert states(search_of(SPEC, log)) == states(again)


def test_their_results_decide_as_if_they_had_had_these_keys_before() -> None:
    log, undisturbed = MemoryLog(), MemoryLog()
    _, (_, failed, running) = cut_off(log)
    again = search_of(SPEC, log)
    again.begin_again({failed: "new-1", running: "new-2"})
    for _, trial in list(again.unfinished()):
        again.finish(trial.key, {METRIC: accuracy(trial.config)}, 1.0)
    run_all(again, accuracy)
    run_all(search_of(SPEC, undisturbed), accuracy)
    first, second = overview(SPEC, log.decisions), overview(SPEC, undisturbed.decisions)
    assert (first.trials, first.finished) == (second.trials, second.finished)
    ends = [[one for one in each.decisions if one.kind is Kind.END] for each in (log, undisturbed)]
    assert [(one.group, one.values, one.value) for one in ends[0]] == [(one.group, one.values, one.value) for one in ends[1]]
