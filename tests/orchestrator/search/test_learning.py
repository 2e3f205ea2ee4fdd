"""What a search learns from other sweeps: only trials that can be compared with its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import UserError
from orchestrator.search.decisions import Decision, Kind, MemoryLog
from orchestrator.search.groups import groups_of
from orchestrator.search.learning import learned_decisions, observations
from orchestrator.storage.base import Storage
from orchestrator.storage.factory import open_storage
from orchestrator.storage.layout import trial_file
from tests.support.recorded_grid import METRIC
from tests.support.synthetic_grid import key_of, search_of, spec_with
from trainables.config.keys import canonical
from trainables.config.trial import TrialConfig
from trainables.records.file_names import RESULT
from trainables.records.result_record import encode_result

SPEC = spec_with({"search": {"sparsity": [0.9, 0.98]}})
EASY, HARD = groups_of(SPEC)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "runs"), create=True)


def write_sweep(storage: Storage, trials: Sequence[tuple[TrialConfig, float]], unfinished: Sequence[TrialConfig] = ()) -> None:
    """A sweep `other` with finished trials of these accuracies."""
    keys = [key_of(config) for config, _ in trials]
    for key, (config, accuracy) in zip(keys, trials, strict=True):
        result: dict[str, Any] = {
            "config": canonical(config),
            "metrics": {METRIC: accuracy, "val/loss": 1 - accuracy},
            "model_sha256": "0",
        }
        storage.write(trial_file(key, RESULT), encode_result(key, result, b"", b"")[1])
    record = {"trials": [{"key": key} for key in (*keys, *map(key_of, unfinished))]}
    storage.write("sweeps/other/trials.json", json.dumps(record).encode())
    storage.write("sweeps/other/sweep.yaml", b"name: other\n")


def trial(warmup: int, iterations: int, seed: int = 0, group: Any = EASY) -> TrialConfig:
    config: TrialConfig = group.trial({"warmup_epochs": warmup, "prune_iterations": iterations}, seed)
    return config


def learn(storage: Storage, objectives: Sequence[str] = (METRIC,)) -> list[Decision]:
    return learned_decisions(storage, ["other"], [EASY, HARD], objectives)


def test_means_over_the_seeds_of_each_configuration_are_learned(storage: Storage) -> None:
    write_sweep(storage, [(trial(0, 1), 0.5), (trial(0, 1, seed=7), 0.7), (trial(2, 10, group=HARD), 0.4)], [trial(1, 1)])
    lessons = learn(storage, (METRIC, "val/loss"))
    assert [(one.kind, one.group, one.values) for one in lessons] == [
        (Kind.LEARNED, "s0.9", {"warmup_epochs": 0, "prune_iterations": 1}),
        (Kind.LEARNED, "s0.98", {"warmup_epochs": 2, "prune_iterations": 10}),
    ]
    assert lessons[0].attributes == pytest.approx({METRIC: 0.6, "val/loss": 0.4})
    assert {one.reason for one in lessons} == {"from sweep other"}


def test_trials_that_differ_in_anything_else_teach_nothing(storage: Storage) -> None:
    base = trial(0, 1)
    others = [
        replace(base, sparsity=0.5),
        replace(base, method="magnitude"),
        replace(base, training=replace(base.training, epochs=99)),
        replace(base, dataset=replace(base.dataset, validation=0.3)),
        replace(base, warmup_epochs=7),  # outside the space
    ]
    write_sweep(storage, [(config, 0.9) for config in others] + [(base, 0.5)])
    assert [one.attributes for one in learn(storage)] == [{METRIC: 0.5}]


def test_sweep_that_teaches_nothing_is_an_error(storage: Storage) -> None:
    write_sweep(storage, [(replace(trial(0, 1), sparsity=0.5), 0.9)])
    with pytest.raises(UserError, match="none of the 1 finished trials of sweep 'other'") as error:
        learn(storage)
    assert error.value.code == "nothing-to-learn"
    with pytest.raises(UserError, match="no sweep 'missing'"):
        learned_decisions(storage, ["missing"], [EASY], [METRIC])


def test_lessons_are_observations_of_their_group() -> None:
    values = {"warmup_epochs": 2, "prune_iterations": 100}
    lessons = [
        Decision(kind=Kind.LEARNED, group=group, values=values, attributes={METRIC: 0.5, "val/loss": 0.1})
        for group in ("s0.9", "s0.98")
    ]
    (one,) = observations(lessons, "s0.98", HARD.space, ["val/loss", METRIC])
    assert (one.parameters, one.values) == ({"warmup_epochs": 2, "prune_iterations": 2}, [0.1, 0.5])


def test_search_learns_once_unless_interrupted() -> None:
    lessons = [
        Decision(
            kind=Kind.LEARNED, group="s0.9", values={"warmup_epochs": 0, "prune_iterations": number}, attributes={METRIC: 0.5}
        )
        for number in (1, 10, 100)
    ]
    spec = spec_with({"strategy": {"name": "tpe", "configurations": 3, "learn_from": ["other"]}})
    whole = MemoryLog()
    search_of(spec, whole, learn=lambda groups, objectives: lessons)
    assert [one.kind for one in whole.decisions] == [Kind.LEARNED] * 3 + [Kind.START]
    for length in range(5):
        log = MemoryLog(whole.decisions[:length])
        search = search_of(spec, log, learn=lambda groups, objectives: lessons if length < 4 else pytest.fail("asked again"))  # noqa: B023
        assert log.decisions == whole.decisions
        assert len(search.groups[0].proposer.learned) == 3  # type: ignore[attr-defined]
