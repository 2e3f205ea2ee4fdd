"""Samplers: the same question has the same answer, which lies in the space."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.search import samplers
from orchestrator.search.samplers import SAMPLERS, Observation, Sampler, derived_seed, importances
from orchestrator.search.space import Axis, Space
from orchestrator.spec.ranges import Range
from orchestrator.spec.search_schema import GRID, STRATEGIES

SPACE = Space((Axis("warmup_epochs", Range(0, 20)), Axis("lr", Range(0.001, 0.1, log=True)), Axis("kind", ("a", "b", "c"))))
MAXIMIZE: tuple[Literal["maximize"]] = ("maximize",)
FAST = [name for name in SAMPLERS if name != "gp"]


def sampler(name: str, seed: int = 0, purpose: str = "s0.9", space: Space = SPACE, objectives: int = 1) -> Sampler:
    return Sampler(name=name, space=space, directions=MAXIMIZE * objectives, seed=seed, purpose=purpose)


def observation(index: int, space: Space = SPACE, value: float | None = None) -> Observation:
    values = {"warmup_epochs": index % 21, "lr": 0.001 + 0.0001 * index, "kind": "abc"[index % 3]}
    chosen = {axis.key: values[axis.key] for axis in space.axes}
    return Observation(parameters=space.encode(chosen), values=[0.5 + 0.01 * (index % 7) if value is None else value])


def many(number: int) -> list[Observation]:
    """Observations of every kind: finished, running, failed and stopped early."""
    rows = [observation(index) for index in range(number)]
    for index, row in enumerate(rows):
        if index % 5 == 1:
            rows[index] = replace(row, values=None)
        elif index % 5 == 2:
            rows[index] = replace(row, values=None, failed=True)
        elif index % 5 == 3:
            rows[index] = replace(row, pruned_at=2)
    return rows


def test_every_strategy_is_a_sampler_or_the_grid() -> None:
    assert set(SAMPLERS) | {GRID} == set(STRATEGIES)


@pytest.mark.parametrize("name", SAMPLERS)
def test_sampler_answers_depend_on_question_and_seed_alone(name: str) -> None:
    known = many(14)
    proposals = [sampler(name).propose(known, 14) for _ in range(2)]
    assert proposals[0] == proposals[1]
    others = [
        sampler(name, seed=1).propose(known, 14),
        sampler(name, purpose="s0.98").propose(known, 14),
        sampler(name).propose(known, 15),
    ]
    if name != "gp":  # the best point of a Gaussian process may be one, whatever the seed
        assert all(other.values != proposals[0].values for other in others)


@pytest.mark.parametrize("name", FAST)
@given(number=st.integers(0, 15), seed=st.integers(0, 1000), question=st.integers(0, 30))
@settings(max_examples=15)
def test_proposal_lies_in_the_space(name: str, number: int, seed: int, question: int) -> None:
    proposal = sampler(name, seed=seed).propose(many(number), question)
    assert SPACE.contains(proposal.values)
    assert list(proposal.values) == [axis.key for axis in SPACE.axes]


def test_gp_learns_and_stays_in_the_space() -> None:
    space = Space((Axis("warmup_epochs", Range(0, 20)),))
    known = [observation(index, space, -abs(index - 13) / 20) for index in range(0, 21, 2)]
    known.append(replace(observation(20, space, -0.4), pruned_at=1))
    for one in known, [replace(each, pruned_at=1) for each in known]:
        values = [sampler("gp", space=space).propose(one, question).values for question in range(12, 15)]
        assert all(space.contains(each) and abs(each["warmup_epochs"] - 13) <= 2 for each in values)


def test_tpe_prefers_what_was_good() -> None:
    space = Space((Axis("warmup_epochs", Range(0, 20)),))
    known = [observation(index, space, -abs(index - 13) / 20) for index in range(21)]
    proposals = [sampler("tpe", space=space).propose(known, question).values["warmup_epochs"] for question in range(30)]
    assert sum(abs(value - 13) <= 4 for value in proposals) > 20


def test_qmc_is_one_sequence_that_covers_the_space_evenly() -> None:
    space = Space((Axis("x", Range(0.0, 1.0)),))
    points = sorted(sampler("qmc", space=space).propose([], question).values["x"] for question in range(1, 17))
    random = sorted(sampler("random", space=space).propose([], question).values["x"] for question in range(1, 17))

    def discrepancy(values: list[float]) -> float:
        return max(max(abs(value - index / 16), abs(value - (index + 1) / 16)) for index, value in enumerate(values))

    assert discrepancy(points) < 1.9 / 16 < discrepancy(random)
    known = [Observation(parameters={"x": 0.5}, values=[0.9])]
    assert sampler("qmc", space=space).propose(known, 5) == sampler("qmc", space=space).propose([], 5)


def test_nsga2_keeps_its_generations_over_a_rebuild(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attributes go through decisions.jsonl, so that a study made anew knows which configurations are parents."""
    monkeypatch.setattr(samplers, "STARTUP", 4)
    known: list[Observation] = []
    generations: list[Any] = []
    for question in range(13):
        proposal = sampler("nsga2", objectives=2).propose(known, question)
        parameters = SPACE.encode(proposal.values)
        accuracy, size = float(parameters["warmup_epochs"]), -float(parameters["lr"])
        known.append(Observation(parameters=parameters, values=[accuracy, size], attributes=proposal.attributes))
        generations.append(next(value for key, value in proposal.attributes.items() if key.endswith("generation")))
    assert generations == [0] * 4 + [1] * 4 + [2] * 4 + [3]


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_limit_of_observations_keeps_the_best_and_the_latest(direction: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(samplers.MAX_OBSERVATIONS, "tpe", 6)
    values = [0.1, 0.9, 0.5, 0.8, 0.2, 0.7, 0.3, 0.4, 0.6, 0.05]
    known = [observation(index, value=value) for index, value in enumerate(values)]
    known[3] = replace(known[3], pruned_at=1)  # a rung is no result
    one = replace(sampler("tpe"), directions=(direction,))
    kept = [known.index(each) for each in one._known(known)]
    assert kept == ([1, 2, 5, 7, 8, 9] if direction == "maximize" else [0, 4, 6, 7, 8, 9])
    assert one._known(known[:6]) == known[:6]


def test_axis_that_decides_the_objective_is_the_important_one() -> None:
    space = Space((Axis("warmup_epochs", Range(0, 20)), Axis("kind", ("a", "b"))))
    known = [
        Observation(parameters={"warmup_epochs": index % 21, "kind": index // 21 % 2}, values=[float(index % 21)])
        for index in range(42)
    ]
    shares = importances(sampler("tpe", space=space), known)
    assert shares["warmup_epochs"] > 0.9
    assert sum(shares.values()) == pytest.approx(1)
    assert importances(sampler("tpe", space=space), known[:3]) == {}


def test_seeds_differ_by_search_group_and_question() -> None:
    seeds = {derived_seed(seed, purpose, number) for seed in range(5) for purpose in ("a", "b") for number in range(-2, 50)}
    assert len(seeds) == 5 * 2 * 52
    assert all(0 <= seed < 2**31 for seed in seeds)
