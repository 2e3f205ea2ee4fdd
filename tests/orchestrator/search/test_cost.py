"""What a search may cost: sums by hand, and replays of the real search on a recorded grid."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pytest

from orchestrator.scheduling.early_stopping import asha
from orchestrator.search import cost
from orchestrator.search.cost import Cost, search_cost
from orchestrator.spec.loader import resolved, spec_from_resolved
from orchestrator.spec.schema import SweepSpec
from tests.support.recorded_grid import load_grid
from tests.support.search_replay import Replay, drawn_seeds
from tests.support.sweep_files import BASE, load_text

# 4 epochs for each of 2 sparsities x 3 configurations x 3 seeds, a warm-up of 2 for each seed, and a dense baseline.
GRID = "search: {warmup_epochs: [0, 1, 2], sparsity: [0.9, 0.98]}\ntraining: {epochs: 4}\nseeds: {first: 1, most: 3}\n"
RANDOM = {"name": "random", "configurations": 24}


def test_a_grid_costs_at_most_everything() -> None:
    whole = Cost(trials=18 + 1, epochs=18 * 4 + 2 * 3 + 4)
    costs = search_cost(load_text(BASE + GRID))
    assert (costs.most, costs.grid) == (whole, whole)
    unshared = search_cost(load_text(BASE + GRID, "share_warmups=false"))
    assert unshared.most == unshared.grid == Cost(trials=19, epochs=18 * 4 + 2 * 3 * (0 + 1 + 2) + 4)


def test_a_sampler_costs_at_most_its_longest_configurations() -> None:
    spec = load_text(BASE + GRID, "strategy={name: tpe, configurations: 2}", "training.budget=total", "baseline=none")
    # sparse epochs of warm-ups 0 and 1 are 4 and 3
    assert search_cost(spec).most == Cost(trials=12, epochs=2 * 3 * (4 + 3) + 2 * 3)


def test_a_range_without_a_step_has_no_grid_and_costs_its_bounds() -> None:
    spec = load_text(
        BASE, "search={training.lr: {min: 0.1, max: 1.0}, warmup_epochs: [2, 3]}", "strategy={name: gp, configurations: 5}"
    )
    costs = search_cost(spec)
    assert costs.grid is None
    epochs = spec.training.epochs
    assert costs.most == Cost(trials=5 + 1, epochs=5 * (epochs + 3) + epochs)  # every learning rate has its own warm-up


def test_a_large_space_is_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    text = BASE + "search: {prune_iterations: {min: 1, max: 9}}\nstrategy: {name: random, configurations: 3}\n"
    assert search_cost(load_text(text)).grid is not None
    monkeypatch.setattr(cost, "MAX_LISTED", 8)
    assert search_cost(load_text(text)).grid is None


def test_budgets_bound_the_cost() -> None:
    costs = search_cost(load_text(BASE + GRID, "budget={epochs: 20}"))
    assert costs.most.epochs == 20 + 4
    assert costs.typical.epochs <= 20 + 4
    assert search_cost(load_text(BASE + GRID, "budget={configurations: 4}")).most.trials == 4 * 3 + 1


def test_without_early_stopping_nothing_ends_early() -> None:
    costs = search_cost(load_text(BASE + GRID, "seeds={first: 2, most: 2}"))
    assert costs.typical == costs.most


def test_the_simulated_rung_is_that_of_rays_rule() -> None:
    draw, rule, before = random.Random(0), asha("max", 1, 3, 9), list[float]()
    for key in map(str, range(200)):
        rule.add(key)
        value = draw.random()
        assert rule.should_stop(key, 1, value) == cost._stops(value, before, 3)


def test_of_many_configurations_about_a_share_goes_on() -> None:
    alone = cost._successive_halving(1, 2, 3, (1, 3), 9)
    assert (alone.trials, alone.sparse_epochs, alone.finished) == (2, 18, 1)
    many = cost._successive_halving(300, 1, 3, (1,), 9)
    assert many.trials == 300
    assert many.finished == pytest.approx(100, abs=10)
    assert many.sparse_epochs == pytest.approx(300 * 1 + many.finished * 8)


@pytest.mark.parametrize(
    ("contenders", "first", "further", "rounds"),
    [(1, 2, 3, []), (2, 1, 3, [2.0]), (8, 2, 3, [4.0, 2.0]), (8, 1, 1, [4.0]), (0, 1, 3, [])],
)
def test_a_race_halves_its_contenders(contenders: float, first: int, further: int, rounds: list[float]) -> None:
    assert cost._race(contenders, first, further) == rounds


def replayed(keys: Mapping[str, Any]) -> tuple[SweepSpec, list[int]]:
    """The search on the recorded digits, and the epochs of some replays of it."""
    grid = load_grid("digits")
    values = resolved(grid.spec())
    del values["search"]["seed"]
    spec = spec_from_resolved(values | dict(keys))
    rule = spec.early_stopping
    used = []
    for number in range(4):
        stopper = (lambda group: asha("max", 1, 3, 9)) if rule else None
        replay = Replay(grid=grid, spec=spec, seeds=drawn_seeds(range(4), number), stopper_of=stopper)
        used.append(replay.run().meter.epochs)
    return spec, used


@pytest.mark.parametrize(
    "keys",
    [
        {"strategy": RANDOM, "seeds": {"first": 1, "most": 4}, "early_stopping": {"name": "asha"}},
        {"strategy": RANDOM, "seeds": {"first": 2, "most": 4}, "early_stopping": {"name": "asha"}},
        {"strategy": RANDOM, "seeds": {"first": 1, "most": 3}},
        {"strategy": RANDOM, "seeds": {"first": 2, "most": 4}},
        {"seeds": {"first": 1, "most": 3}},
    ],
)
def test_replays_cost_about_the_typical_and_at_most_the_most(keys: dict[str, Any]) -> None:
    spec, used = replayed(keys)
    costs = search_cost(spec)
    assert max(used) <= costs.most.epochs
    assert 0.7 < sum(used) / len(used) / costs.typical.epochs < 1.2
