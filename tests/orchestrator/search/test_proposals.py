"""What a group tries next: given points, then the strategy's, none twice, cheap warm-ups first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from orchestrator.search.proposals import QUESTION, GridProposer, Proposer, SamplerProposer, Suggestion
from orchestrator.search.records import FAILED, FINISHED, STOPPED, ConfigurationRecord, TrialRecord
from orchestrator.search.samplers import Observation, Proposal, Sampler
from orchestrator.search.space import Axis, Space, Values
from orchestrator.spec.grid import base_config
from orchestrator.spec.ranges import Range
from tests.support.synthetic_grid import spec_with

SPACE = Space((Axis("warmup_epochs", (0, 4, 8)), Axis("prune_iterations", (1, 10))))
METRIC = "val/accuracy"
CONFIG = base_config(spec_with(), "drive")


@dataclass(kw_only=True)
class ScriptedSampler(Sampler):
    """Proposes what a script says, by the number of the question."""

    name: str = "tpe"
    script: list[dict[str, Any]] = field(default_factory=list)
    asked: list[tuple[int, list[Observation]]] = field(default_factory=list)

    def propose(self, observations: Any, question: int) -> Proposal:
        self.asked.append((question, list(observations)))
        return Proposal(self.script[question % len(self.script)], {"noted": question})


def identity(values: Values) -> tuple[Any, ...]:
    return tuple(sorted(values.items()))


def proposer(
    name: str = "random",
    space: Space = SPACE,
    script: list[dict[str, Any]] | None = None,
    missing: Callable[[Values], int] = lambda values: 0,
    **options: Any,
) -> SamplerProposer:
    common: dict[str, Any] = {"space": space, "directions": ("maximize",), "seed": 0, "purpose": "s0.9"}
    sampler = Sampler(name=name, **common) if script is None else ScriptedSampler(script=script, **common)
    return SamplerProposer(
        sampler=sampler, space=space, objectives=(METRIC,), identity_of=identity, missing_warmup=missing, **options
    )


def record(number: int, suggestion: Suggestion | Mapping[str, Any], value: float | None = 0.5) -> ConfigurationRecord:
    one = suggestion if isinstance(suggestion, Suggestion) else Suggestion(dict(suggestion), {QUESTION: number}, "tpe")
    made = ConfigurationRecord(number=number, values=one.values, reason=one.reason, attributes=one.attributes)
    if value is not None:
        made.trials[0] = trial(0, FINISHED, {METRIC: value})
    return made


def trial(seed: int, state: str, values: Mapping[str, float] | None = None, **options: Any) -> TrialRecord:
    return TrialRecord(
        key=f"k{seed}", seed=seed, config=CONFIG, cost=1, can_stop=True, state=state, values=values or {}, **options
    )


def course(proposes: Proposer, most: int = 100) -> list[Suggestion]:
    """Suggestions until there is none, each with a result before the next."""
    suggestions: list[Suggestion] = []
    while len(suggestions) < most:
        known = [record(number, one, 0.5 + 0.01 * number) for number, one in enumerate(suggestions)]
        suggestion = proposes.next(known)
        assert suggestion == proposes.next(known)
        if suggestion is None:
            break
        suggestions.append(suggestion)
    return suggestions


def grid_proposer(identity_of: Callable[[Values], Any], seed: int = 0) -> GridProposer:
    return GridProposer(space=SPACE, identity_of=identity_of, seed=seed, purpose="s0.9")


@pytest.mark.parametrize("name", ["grid", "random", "qmc", "tpe", "nsga2"])
def test_finite_space_is_exhausted_without_repeats(name: str) -> None:
    proposes: Proposer = grid_proposer(identity) if name == "grid" else proposer(name)
    suggestions = course(proposes)
    assert len(suggestions) == 6
    assert {identity(one.values) for one in suggestions} == {identity(values) for values in SPACE.grid()}


def test_configurations_that_lead_to_one_trial_are_tried_once() -> None:
    """As under a method that has no iterations."""
    proposes = proposer()
    proposes.identity_of = lambda values: values["warmup_epochs"]
    assert sorted(one.values["warmup_epochs"] for one in course(proposes)) == [0, 4, 8]
    grid = grid_proposer(lambda values: values["warmup_epochs"])
    assert sorted(one.values["warmup_epochs"] for one in course(grid)) == [0, 4, 8]


def test_grid_is_gone_through_in_an_order_of_its_seed() -> None:
    orders = {seed: [tuple(one.values.values()) for one in course(grid_proposer(identity, seed))] for seed in (0, 1)}
    assert orders[0] != orders[1]
    assert orders[0] == [tuple(one.values.values()) for one in course(grid_proposer(identity, 0))]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(tuple(values.values()) for values in SPACE.grid())


def test_infinite_space_whose_configurations_are_all_known_ends() -> None:
    space = Space((Axis("lr", Range(0.1, 1.0)),))
    proposes = proposer(space=space)
    proposes.identity_of = lambda values: "one"
    assert len(course(proposes)) == 1


def test_given_points_come_first_and_once() -> None:
    points = [{"warmup_epochs": 8, "prune_iterations": 10}, {"warmup_epochs": 0, "prune_iterations": 1}]
    suggestions = course(proposer(start_with=[*points, points[0]]))
    assert [one.values for one in suggestions[:2]] == points
    given = [one.reason for one in suggestions if "start_with" in one.reason]
    assert given == ["strategy.start_with[0]", "strategy.start_with[1]"]
    assert len(suggestions) == 6


def test_given_point_with_some_axes_is_completed_by_the_sampler() -> None:
    proposes = proposer(start_with=[{"warmup_epochs": 8}, {"prune_iterations": 10}])
    suggestions = course(proposes)
    first, second, *rest = suggestions
    assert first.values["warmup_epochs"] == 8
    assert second.values["prune_iterations"] == 10
    assert SPACE.contains(first.values)
    assert SPACE.contains(second.values)
    assert not any("start_with" in one.reason for one in rest)
    assert len(suggestions) == 6


A, B, C, D = ({"warmup_epochs": epochs, "prune_iterations": 1} for epochs in (8, 4, 0, 8))
MISSING = {8: 8, 4: 4, 0: 0}


def missing(values: Values) -> int:
    return MISSING[values["warmup_epochs"]]


def test_candidate_whose_warmup_is_trained_goes_first() -> None:
    proposes = proposer(script=[A, B, C], missing=missing)
    suggestion = proposes.next([])
    assert suggestion is not None
    assert suggestion.values == C
    assert suggestion.attributes == {"noted": 2, QUESTION: 2}
    assert suggestion.reason == "tpe: candidate 3, whose warm-up is trained; that of the first lacks 8 epochs"


def test_every_second_proposal_is_the_first_candidate() -> None:
    proposes = proposer(script=[A, B, C], missing=missing)
    known = [record(0, {"warmup_epochs": 0, "prune_iterations": 10}) for _ in range(1)]
    known[0].attributes = {QUESTION: 2}
    suggestion = proposes.next(known)
    assert suggestion is not None
    assert (suggestion.values, suggestion.reason, suggestion.attributes[QUESTION]) == (A, "tpe", 3)


def test_first_candidate_goes_unless_another_is_much_cheaper() -> None:
    assert [proposer(script=script, missing=missing).next([]) for script in ([A, B], [C, A])] == [
        Suggestion(A, {"noted": 0, QUESTION: 0}, "tpe"),
        Suggestion(C, {"noted": 0, QUESTION: 0}, "tpe"),
    ]


def test_sampler_is_asked_for_no_more_candidates_than_are_needed() -> None:
    proposes = proposer(script=[A, B, {"warmup_epochs": 4, "prune_iterations": 10}], missing=missing, candidates=2)
    suggestion = proposes.next([])
    assert suggestion is not None
    assert suggestion.values == A
    assert isinstance(proposes.sampler, ScriptedSampler)
    assert [question for question, _ in proposes.sampler.asked] == [0, 1]


def test_repeating_sampler_gives_way_to_the_rest() -> None:
    proposes = proposer(script=[A], missing=missing)
    suggestion = proposes.next([record(0, A)])
    assert suggestion is not None
    assert suggestion.values != A
    assert suggestion.reason == "not tried yet; tpe proposed known ones 16 times"
    assert SPACE.contains(suggestion.values)


def test_sampler_learns_what_became_of_each_configuration() -> None:
    rows = [{"warmup_epochs": epochs, "prune_iterations": iterations} for epochs in (0, 4, 8) for iterations in (1, 10)]
    known = [record(number, values, None) for number, values in enumerate(rows[:5])]
    known[0].trials = {0: trial(0, FINISHED, {METRIC: 0.4}), 1: trial(1, FINISHED, {METRIC: 0.6})}
    known[1].trials = {0: trial(0, FINISHED, {METRIC: 0.4}), 1: trial(1, "running")}
    known[2].trials = {0: trial(0, STOPPED, {METRIC: 0.3}, rungs={1: 0.2, 3: 0.3})}
    known[3].trials = {0: trial(0, FAILED)}
    proposes = proposer(script=[rows[5]], learned=[Observation(parameters={"x": 1}, values=[0.9])])
    proposes.next(known)
    assert isinstance(proposes.sampler, ScriptedSampler)
    learned, *observations = proposes.sampler.asked[0][1]
    assert learned.values == [0.9]
    assert [one.parameters for one in observations] == [SPACE.encode(values) for values in rows[:5]]
    assert [(one.values, one.pruned_at, one.failed) for one in observations] == [
        ([0.5], None, False),
        (None, None, False),
        ((0.3,), 3, False),
        (None, None, True),
        (None, None, False),
    ]
    assert all(QUESTION not in one.attributes for one in observations)
