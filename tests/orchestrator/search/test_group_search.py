"""The course of one group: who begins, who stops, who races, and how it ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from orchestrator.scheduling.early_stopping import asha, median
from orchestrator.search.decisions import Kind, MemoryLog
from orchestrator.search.group_search import STOPS
from orchestrator.search.racing import Outcome
from orchestrator.search.rules import GroupRules
from orchestrator.search.search import Search
from orchestrator.search.settings import is_settled
from tests.support.recorded_grid import METRIC
from tests.support.synthetic_grid import EPOCHS, key_of, of_kind, run_all, search_of, spec_with, timeless
from trainables.config.trial import TrialConfig

pytestmark = pytest.mark.usefixtures("grid_in_order")

NINE = [(warmup, iterations) for warmup in (0, 1, 2) for iterations in (1, 10, 100)]
Accuracy = Callable[[TrialConfig], float]


def by_configuration(values: Mapping[tuple[int, int], float], default: float = 0.5, noise: float = 0.0) -> Accuracy:
    """Accuracies of configurations, with a noise that alternates in sign between seeds and configurations."""

    def accuracy(config: TrialConfig) -> float:
        sign = 1 if (config.seed + config.warmup_epochs + config.prune_iterations) % 2 else -1
        return values.get((config.warmup_epochs, config.prune_iterations), default) + sign * noise

    return accuracy


def outcome_of(keys: dict[str, Any], accuracy: Accuracy, **options: Any) -> tuple[Search, Any]:
    search = search_of(spec_with(keys), **options)
    run_all(search, accuracy)
    assert search.is_done
    (group,) = search.groups
    return search, group.end


def seeds_by_configuration(search: Search) -> dict[int, set[int]]:
    return {one.number: set(one.trials) for one in search.groups[0].configurations}


# -- the ends of a race --------------------------------------------------------------------------------------------------


def test_race_ends_once_one_configuration_beats_all() -> None:
    search, end = outcome_of({"seeds": {"first": 2, "most": 6}}, by_configuration({(1, 10): 0.9}, noise=0.001))
    assert (end.state, end.values) == (Outcome.BETTER, {"warmup_epochs": 1, "prune_iterations": 10})
    assert len(search.groups[0].by_key) == 2 * len(NINE)


def test_race_ends_indifferent_where_nobody_is_clearly_better() -> None:
    values = {(1, 10): 0.9001, (1, 1): 0.9}
    _, end = outcome_of({"seeds": {"first": 2, "most": 6, "indifference": 1.0}}, by_configuration(values, noise=0.001))
    assert (end.state, end.values) == (Outcome.INDIFFERENT, {"warmup_epochs": 1, "prune_iterations": 10})


def test_race_ends_undecided_with_the_last_seed() -> None:
    values = {(1, 10): 0.9001, (1, 1): 0.9}
    search, end = outcome_of({"seeds": {"first": 2, "most": 4, "indifference": 0.0}}, by_configuration(values, noise=0.05))
    assert end.state == Outcome.UNDECIDED
    assert max(len(seeds) for seeds in seeds_by_configuration(search).values()) == 4


@pytest.mark.parametrize(
    ("objective", "value", "text"),
    [
        ("val/accuracy", 0.0, "0 points"),
        ("val/accuracy", 0.0034, "0.34 points"),
        ("val/accuracy", 0.174, "17 points"),
        ("val/accuracy", 1.2, ""),
        ("val/loss", 1.23, "1.2"),
        ("cost/total_seconds", math.inf, ""),
    ],
)
def test_differences_are_told_in_the_unit_of_the_objective(objective: str, value: float, text: str) -> None:
    assert GroupRules(objectives={objective: "max"}, first_seeds=(0,)).difference(value) == text


def test_race_ends_with_the_budget_in_words() -> None:
    search, end = outcome_of({"seeds": {"first": 1, "most": 6}, "budget": {"epochs": 30}}, by_configuration({(0, 10): 0.9}))
    assert (end.state, end.values) == (Outcome.BUDGET, {"warmup_epochs": 0, "prune_iterations": 10})
    assert "budget.epochs" in end.reason
    assert search.meter.epochs <= 30 < search.meter.epochs + EPOCHS + 2


def test_search_without_staged_seeds_ends_explored() -> None:
    _, end = outcome_of({"seeds": {"first": 2, "most": 2}}, by_configuration({(2, 100): 0.9}))
    assert (end.state, end.values) == (Outcome.EXPLORED, {"warmup_epochs": 2, "prune_iterations": 100})
    assert end.value == pytest.approx(0.9)


@pytest.mark.parametrize(("limit", "outcome"), [(None, Outcome.EXPLORED), (12, Outcome.BUDGET)])
def test_search_with_several_objectives_recommends_none(limit: int | None, outcome: Outcome) -> None:
    keys: dict[str, Any] = {"seeds": {"first": 1, "most": 1}, "objective": {METRIC: "max", "model/flops": "min"}}
    search = search_of(spec_with(keys | ({"budget": {"epochs": limit}} if limit else {})))
    while (begun := search.next_trial()) is not None:
        search.finish(begun.key, {METRIC: 0.9, "model/flops": 1.0, "other": 3.0}, 0.0)
    end = search.groups[0].end
    assert end is not None
    assert (end.state, end.configuration) == (outcome, None)
    assert all(set(one.values) == {METRIC, "model/flops"} for one in of_kind(search, Kind.RESULT))


def test_search_whose_trials_all_fail_ends_with_nothing() -> None:
    search = search_of(spec_with({"seeds": {"first": 2, "most": 3}}))
    while (begun := search.next_trial()) is not None:
        search.fail(begun.key, "no memory")
    end = search.groups[0].end
    assert end is not None
    assert (end.state, end.configuration) == (Outcome.NOTHING, None)
    assert len(of_kind(search, Kind.TRIAL)) == len(NINE)  # the second seed of a failed configuration never begins


def test_smaller_values_lead_where_the_objective_is_to_be_small() -> None:
    search = search_of(spec_with({"seeds": {"first": 2, "most": 4, "indifference": 0.0}, "objective": "val/loss"}))
    accuracy = by_configuration({(1, 10): 0.1}, noise=0.001)
    while (begun := search.next_trial()) is not None:
        search.finish(begun.key, {"val/loss": accuracy(begun.config)}, 0.0)
    end = search.groups[0].end
    assert end is not None
    assert (end.state, end.values) == (Outcome.BETTER, {"warmup_epochs": 1, "prune_iterations": 10})


# -- paired seeds ----------------------------------------------------------------------------------------------------------


def test_contenders_have_the_same_seeds_at_every_look() -> None:
    values = dict(zip(NINE, (0.90, 0.901, 0.902, 0.899, 0.8, 0.81, 0.9015, 0.82, 0.83), strict=True))
    search, _ = outcome_of({"seeds": {"first": 2, "most": 6, "indifference": 0.0}}, by_configuration(values, noise=0.004))
    seeds: dict[int | None, list[int | None]] = {number: [] for number in range(len(NINE))}
    rank: dict[int | None, int | None] = {}
    for decision in search.decisions:
        if decision.kind is Kind.TRIAL:
            seeds[decision.configuration].append(decision.seed)
        elif decision.kind in (Kind.RULED_OUT, Kind.BEHIND):
            rank |= {int(number): decision.epoch for number in decision.values}
        if decision.kind in (Kind.RULED_OUT, Kind.BEHIND, Kind.END):
            contenders = [number for number in seeds if rank.get(number, decision.epoch) in (None, decision.epoch)]
            assert len({tuple(seeds[number]) for number in contenders}) == 1
    assert max(map(len, seeds.values())) == 6
    assert all(row == list(range(len(row))) for row in seeds.values())
    for number, last in rank.items():
        assert len(seeds[number]) == last  # nobody gets another seed after it was ruled out


def test_seeds_of_a_race_begin_together_where_slots_are_free() -> None:
    """The seeds that all contenders need do not wait for each other, but the next look waits for all of them."""
    accuracy = by_configuration({}, noise=0.01)
    search = search_of(spec_with({"seeds": {"first": 2, "most": 4, "indifference": 0.0}}))
    while not any(one.epoch == 2 for one in of_kind(search, Kind.BEHIND, Kind.RULED_OUT)) and len(
        of_kind(search, Kind.TRIAL)
    ) < 2 * len(NINE):
        begun = search.next_trial()
        assert begun is not None
        search.finish(begun.key, {METRIC: accuracy(begun.config)}, 0.0)
    together = []
    while (begun := search.next_trial()) is not None:
        together.append(begun)
    contenders = search.groups[0].standings.contenders()
    assert {(one.config.warmup_epochs, one.config.prune_iterations) for one in together} == {
        (one.values["warmup_epochs"], one.values["prune_iterations"]) for one in contenders
    }
    assert len(together) == len(contenders) > 1
    assert {one.config.seed for one in together} == {2}


# -- early stopping --------------------------------------------------------------------------------------------------------


def first_seeds_with_rungs(search: Search, curve: Callable[[TrialConfig, int], float]) -> list[TrialConfig]:
    """Runs a search with rungs at epochs 1 and 2; returns the stopped trials."""
    stopped = []
    while (begun := search.next_trial()) is not None:
        for epoch in (1, 2):
            if search.at_rung(begun.key, epoch, curve(begun.config, epoch)):
                search.stop(begun.key, epoch, 0.0)
                stopped.append(begun.config)
                break
        else:
            search.finish(begun.key, {METRIC: curve(begun.config, EPOCHS)}, 0.0)
    return stopped


@pytest.mark.parametrize("rule", ["asha", "median"])
def test_seed_of_the_configuration_in_front_is_never_stopped(rule: str) -> None:
    """The best configuration has one unlucky seed, far behind at every rung."""
    best = (0, 10)

    def curve(config: TrialConfig, epoch: int) -> float:
        if (config.warmup_epochs, config.prune_iterations) != best:
            return 0.5 + 0.01 * epoch + 0.0001 * config.seed
        return 0.3 if config.seed == 1 else 0.9

    keys = {"seeds": {"first": 2, "most": 2}, "early_stopping": {"name": rule}}
    stopper = {"asha": lambda group: asha("max", 1, 2, EPOCHS), "median": lambda group: median("max", 1)}[rule]
    search = search_of(spec_with(keys), stopper_of=stopper)
    stopped = first_seeds_with_rungs(search, curve)
    assert best not in {(one.warmup_epochs, one.prune_iterations) for one in stopped}
    spared = [one for one in of_kind(search, Kind.RUNG) if "leading" in one.reason]
    assert {(one.configuration, one.seed) for one in spared} == {(1, 1)}


def test_further_seeds_are_never_stopped() -> None:
    keys = {"seeds": {"first": 1, "most": 5, "indifference": 0.0}, "early_stopping": {"name": "asha"}}

    def curve(config: TrialConfig, epoch: int) -> float:
        if config.seed > 0:
            return 0.001 * ((config.prune_iterations + config.seed) % 7)  # far behind all the first seeds
        return 0.1 * epoch - 0.001 * config.warmup_epochs

    search = search_of(spec_with(keys), stopper_of=lambda group: asha("max", 1, 2, EPOCHS))
    stopped = first_seeds_with_rungs(search, curve)
    assert stopped
    assert {one.seed for one in stopped} == {0}
    assert any(one.seed for one in of_kind(search, Kind.TRIAL))
    assert all(one.seed == 0 for one in of_kind(search, Kind.RUNG))


def test_stopped_configuration_is_neither_seeded_nor_recommended() -> None:
    keys = {"seeds": {"first": 2, "most": 2}, "early_stopping": {"name": "asha"}}
    search = search_of(spec_with(keys), stopper_of=lambda group: asha("max", 1, 2, EPOCHS))
    stopped = first_seeds_with_rungs(search, lambda config, epoch: 0.9 - 0.1 * config.warmup_epochs + 0.01 * epoch)
    numbers = {one.configuration for one in of_kind(search, Kind.RUNG) if one.state == STOPS}
    assert stopped
    assert all(len(search.groups[0].configurations[number or 0].trials) == 1 for number in numbers)
    assert search.groups[0].end is not None
    assert search.groups[0].end.configuration not in numbers
    (first, *_) = stopped
    record = search.trials(key_of(first))[0]
    assert (record.state, record.values) == ("stopped", {METRIC: record.rungs[max(record.rungs)]})


def test_rung_is_decided_once() -> None:
    keys = {"seeds": {"first": 1, "most": 1}, "early_stopping": {"name": "asha"}}
    search = search_of(spec_with(keys), stopper_of=lambda group: asha("max", 1, 2, EPOCHS))
    begun = search.next_trial()
    assert begun is not None
    for _ in range(3):
        assert search.at_rung(begun.key, 1, 0.5) == ""
    assert len(of_kind(search, Kind.RUNG)) == 1


# -- failures ----------------------------------------------------------------------------------------------------------------


def test_failed_trial_rules_its_configuration_out_until_retried() -> None:
    best = (1, 10)
    accuracy = by_configuration({best: 0.9})
    search = search_of(spec_with({"seeds": {"first": 2, "most": 2}}), log := MemoryLog())
    failed = ""
    while (begun := search.next_trial()) is not None:
        config = begun.config
        if (config.warmup_epochs, config.prune_iterations) == best:
            search.fail(failed := begun.key, "out of memory")
        else:
            search.finish(begun.key, {METRIC: accuracy(config)}, 0.0)
    group = search.groups[0]
    assert group.end is not None
    assert group.end.values != {"warmup_epochs": 1, "prune_iterations": 10}
    before = search.meter.epochs

    spec = spec_with({"seeds": {"first": 2, "most": 2}})
    assert is_settled(spec, log.decisions)
    again = search_of(spec, log)
    again.retry(failed)
    again.finish(failed, {METRIC: 0.9}, 0.0)
    assert again.meter.epochs == before  # the failed attempt has counted already
    assert not is_settled(spec, log.decisions)
    run_all(again, accuracy)
    assert is_settled(spec, log.decisions)
    ends = of_kind(again, Kind.END)
    assert ends[-1].values == {"warmup_epochs": 1, "prune_iterations": 10}
    assert search_of(spec, log).groups[0].end == ends[-1]


def test_trial_of_a_race_that_fails_leaves_the_others_in_it() -> None:
    values = {(1, 10): 0.92, (1, 1): 0.91, (2, 1): 0.9}
    search = search_of(spec_with({"seeds": {"first": 2, "most": 5, "indifference": 0.0}}))
    accuracy = by_configuration(values, noise=0.02)
    while (begun := search.next_trial()) is not None:
        if begun.config.seed == 2 and (begun.config.warmup_epochs, begun.config.prune_iterations) == (1, 10):
            search.fail(begun.key, "lost")
        else:
            search.finish(begun.key, {METRIC: accuracy(begun.config)}, 0.0)
    end = search.groups[0].end
    assert end is not None
    assert end.values == {"warmup_epochs": 1, "prune_iterations": 1}
    numbers = [(one.configuration, one.seed) for one in of_kind(search, Kind.TRIAL)]
    assert len(numbers) == len(set(numbers))


def test_race_goes_on_with_the_rest_when_a_lonely_leader_fails() -> None:
    """After the first look the best is alone; then it fails, and the others are compared again."""
    best, next_best = (1, 10), (2, 1)
    values = {best: 0.9, next_best: 0.8, (1, 1): 0.795}
    accuracy = by_configuration(values, noise=0.002)
    spec = spec_with({"seeds": {"first": 2, "most": 4, "indifference": 1.0}})
    search = search_of(spec, log := MemoryLog())
    while (begun := search.next_trial()) is not None:
        search.finish(begun.key, {METRIC: accuracy(begun.config)}, 0.0)
    (first_end,) = of_kind(search, Kind.END)
    assert first_end.values == {"warmup_epochs": 1, "prune_iterations": 10}
    dropped = of_kind(search, Kind.RULED_OUT, Kind.BEHIND)
    assert {number for one in dropped for number in one.values} == {str(number) for number in range(9)} - {"4"}
    assert {one.configuration for one in dropped} == {4}

    log.decisions = [one for one in log.decisions if one.kind is not Kind.END]  # as if another seed had been asked for
    again = search_of(spec, log)
    record = again.groups[0].configurations[4].trials[1]
    again.groups[0].apply(again.groups[0].result(record.key, "failed", {}, 0, 0.0, "lost"))
    run_all(again, accuracy)
    end = again.groups[0].end
    assert end is not None
    assert (end.state, end.values) == (Outcome.INDIFFERENT, {"warmup_epochs": 2, "prune_iterations": 1})
    assert end.reason.endswith("; 1 configuration failed and is not compared")


def test_failed_leader_has_shown_nobody_to_be_worse() -> None:
    """What was only worse than a configuration without a result is compared with the one that leads now."""
    search = search_of(spec_with({"seeds": {"first": 2, "most": 4, "indifference": 0.0}}))
    accuracy = by_configuration({(1, 10): 0.9, (2, 1): 0.899}, noise=0.002)
    while (begun := search.next_trial()) is not None:
        if begun.config.seed == 2 and (begun.config.warmup_epochs, begun.config.prune_iterations) == (1, 10):
            assert any(one.is_worse for one in search.groups[0].configurations)
            search.fail(begun.key, "lost")
            assert not any(one.is_worse for one in search.groups[0].configurations)
        else:
            search.finish(begun.key, {METRIC: accuracy(begun.config)}, 0.0)
    assert search.is_done


# -- changed limits ----------------------------------------------------------------------------------------------------------


def test_larger_limits_take_an_ended_search_on() -> None:
    accuracy = by_configuration({(2, 100): 0.9})
    log = MemoryLog()
    small, large = ({"seeds": {"first": 1, "most": 1}, "budget": {"epochs": limit}} for limit in (20, 1000))
    run_all(search_of(spec_with(small), log), accuracy)
    assert is_settled(spec_with(small), log.decisions)
    assert not is_settled(spec_with(large), log.decisions)
    search = search_of(spec_with(large), log)
    run_all(search, accuracy)
    assert len(of_kind(search, Kind.CONFIGURATION)) == len(NINE)
    best = {"warmup_epochs": 2, "prune_iterations": 100}
    assert search.groups[0].end is not None
    assert search.groups[0].end.values == best
    again = search_of(spec_with(small), log)
    assert run_all(again, accuracy) == []
    assert again.groups[0].end is not None
    assert again.groups[0].end.values == best, "what was found under larger limits is not forgotten"
    assert timeless(search_of(spec_with(small), log).decisions)[-1] == timeless(log.decisions)[-1]
