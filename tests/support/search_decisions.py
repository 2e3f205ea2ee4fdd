"""A small search with a course that is written down: two groups, one ended, one in the middle."""

from __future__ import annotations

from orchestrator.search.decisions import Decision, Kind
from orchestrator.search.settings import SearchSettings
from orchestrator.spec.schema import SweepSpec

SEARCH = """\
name: x
dataset: {name: digits, limit: 50, validation: 0.2}
model: convnet
search: {warmup_epochs: [0, 1], prune_iterations: [1, 10], sparsity: [0.9, 0.98]}
seeds: {first: 1, most: 2}
early_stopping: {name: asha}
training: {epochs: 4, batch_size: 20}
precision: fp32
"""
EASY, HARD = "s0.9", "s0.98"


def configuration(group: str, number: int, warmup: int, iterations: int) -> Decision:
    values = {"warmup_epochs": warmup, "prune_iterations": iterations}
    return Decision(kind=Kind.CONFIGURATION, group=group, configuration=number, values=values, reason="grid")


def trial(group: str, number: int, key: str, seed: int = 0) -> Decision:
    return Decision(kind=Kind.TRIAL, group=group, configuration=number, seed=seed, key=key, epoch=5, reason="grid")


def result(group: str, number: int, key: str, accuracy: float, seed: int = 0) -> Decision:
    return Decision(
        kind=Kind.RESULT,
        group=group,
        configuration=number,
        seed=seed,
        key=key,
        values={"val/accuracy": accuracy},
        epoch=5,
        state="finished",
    )


def early_stop(group: str, number: int, key: str) -> list[Decision]:
    reason = f"val/accuracy 0.2000 after 1 sparse epochs is behind others of {group}"
    rung = Decision(
        kind=Kind.RUNG, group=group, configuration=number, seed=0, key=key, epoch=1, value=0.2, state="stops", reason=reason
    )
    values = {"val/accuracy": 0.2}
    stopped = Decision(
        kind=Kind.RESULT,
        group=group,
        configuration=number,
        seed=0,
        key=key,
        values=values,
        epoch=2,
        state="stopped",
        reason=reason,
    )
    return [rung, stopped]


def decisions(spec: SweepSpec) -> list[Decision]:
    """The easy group has ended: of three configurations one was stopped; in the hard one a first trial is finished."""
    return [
        SearchSettings.of(spec).decision(),
        configuration(EASY, 0, 0, 1),
        trial(EASY, 0, "e0"),
        result(EASY, 0, "e0", 0.8),
        configuration(EASY, 1, 0, 10),
        trial(EASY, 1, "e1"),
        result(EASY, 1, "e1", 0.7),
        configuration(EASY, 2, 1, 1),
        trial(EASY, 2, "e2"),
        *early_stop(EASY, 2, "e2"),
        configuration(HARD, 0, 0, 1),
        trial(HARD, 0, "h0"),
        result(HARD, 0, "h0", 0.5),
        trial(EASY, 0, "e3", seed=1),
        result(EASY, 0, "e3", 0.9, seed=1),
        Decision(
            kind=Kind.END,
            group=EASY,
            configuration=0,
            values={"warmup_epochs": 0, "prune_iterations": 1},
            value=0.85,
            state="better",
            reason="better than every other configuration at 95%, with 2 seeds",
        ),
    ]
