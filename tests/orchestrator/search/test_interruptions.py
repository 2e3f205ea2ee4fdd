"""A search that is interrupted anywhere takes the course of an uninterrupted one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.scheduling.early_stopping import asha, median
from orchestrator.search.decisions import Kind, MemoryLog, from_text
from orchestrator.search.early_stopping import EarlyStopper
from orchestrator.search.groups import Group
from tests.support.search_replay import Replay
from tests.support.synthetic_grid import EPOCHS, SEEDS, grid_with, noisy, spec_with, timeless

ASHA = {"early_stopping": {"name": "asha", "reduction": 2}}
MEDIAN = {"early_stopping": {"name": "median"}}
STAGED = {"seeds": {"first": 1, "most": 5}}
TWO_FIRST = {"seeds": {"first": 2, "most": SEEDS}}
CASES: dict[str, dict[str, Any]] = {
    "grid with asha": {**STAGED, **ASHA},
    "grid with median": {**TWO_FIRST, **MEDIAN},
    "grid whose looks rule out in two ways": {"seeds": {"first": 2, "most": SEEDS, "indifference": 0.05}},
    "grid with a budget": {**STAGED, "budget": {"epochs": 60}},
    "random": {**STAGED, **ASHA, "strategy": {"name": "random", "configurations": 7}},
    "qmc": {**STAGED, **MEDIAN, "strategy": {"name": "qmc", "configurations": 7}},
    "tpe": {**STAGED, **ASHA, "strategy": {"name": "tpe", "configurations": 8, "seed": 1}},
    "nsga2": {**STAGED, **MEDIAN, "strategy": {"name": "nsga2", "configurations": 8}},
    "gp": {**STAGED, **ASHA, "strategy": {"name": "gp", "configurations": 5}},
}
QUICK = ("grid with asha", "tpe")
SLOW = {"gp": 11, "tpe": 4, "nsga2": 3, "qmc": 3}  # cut after every so many lines
GRID = grid_with(noisy(spread=0.02, noise=0.004), sparsities=(0.9, 0.98))


def stopper_of(keys: dict[str, Any]) -> Callable[[Group], EarlyStopper] | None:
    rule = keys.get("early_stopping")
    if rule is None:
        return None
    if rule["name"] == "median":
        return lambda group: median("max", 1)
    return lambda group: asha("max", 1, 2, EPOCHS)


def replay(keys: dict[str, Any], log: MemoryLog, max_events: int | None = None) -> Replay:
    startup = {} if "strategy" not in keys else {"start_with": [{"warmup_epochs": 2}]}
    spec = spec_with({**keys, "strategy": keys["strategy"] | startup} if startup else keys, GRID.text)
    return Replay(
        grid=GRID,
        spec=spec,
        seeds={seed: seed for seed in range(SEEDS)},
        log=log,
        stopper_of=stopper_of(keys),
        max_events=max_events,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.long) for name in CASES])
def test_search_cut_after_any_line_takes_the_same_course(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.search.samplers.STARTUP", 4)
    keys = CASES[name]
    whole = MemoryLog()
    replay(keys, whole).run()
    lines = [one.to_line() + "\n" for one in whole.decisions]
    kinds = {one.kind for one in whole.decisions}
    assert {Kind.CONFIGURATION, Kind.TRIAL, Kind.RESULT, Kind.END} <= kinds
    if "two ways" in name:
        rulings = {(one.group, one.epoch, one.kind) for one in whole.decisions if one.kind in (Kind.RULED_OUT, Kind.BEHIND)}
        assert len(rulings) > len({(group, seeds) for group, seeds, _ in rulings})
    for length in range(0, len(lines), SLOW.get(name, 1)):
        log = MemoryLog(from_text("".join(lines[:length])))
        replay(keys, log).run()
        assert timeless(log.decisions) == timeless(whole.decisions), f"cut after line {length}"


@pytest.mark.parametrize("name", ["grid with asha", "grid with median"])
def test_interrupted_search_takes_the_same_course(name: str) -> None:
    whole, pieces = MemoryLog(), MemoryLog()
    replay(CASES[name], whole).run()
    events = EPOCHS  # the rungs of a trial and its end: those of a trial that cannot stop are in no line
    while not replay(CASES[name], pieces, max_events=events).run().is_done:
        assert len(pieces.decisions) < len(whole.decisions)
    assert timeless(pieces.decisions) == timeless(whole.decisions)


@pytest.mark.parametrize("name", CASES)
def test_no_trial_begins_or_ends_twice(name: str) -> None:
    log = MemoryLog()
    replay(CASES[name], log).run()
    for kind in (Kind.TRIAL, Kind.RESULT):
        keys = [one.key for one in log.decisions if one.kind is kind]
        assert len(keys) == len(set(keys)) > 0
    begun = {one.key for one in log.decisions if one.kind is Kind.TRIAL}
    assert begun == {one.key for one in log.decisions if one.kind is Kind.RESULT}
    rungs = [(one.key, one.epoch) for one in log.decisions if one.kind is Kind.RUNG]
    assert len(rungs) == len(set(rungs))
