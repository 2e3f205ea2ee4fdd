"""How long a stage will take, by what the checks before the sweep measured: against counts by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.execution.driver import make_queue
from orchestrator.execution.predicted_durations import PredictedDurations, training_steps
from orchestrator.planning.plan import make_plan
from orchestrator.preflight.data import stored_file
from orchestrator.preflight.networks import RECORD
from orchestrator.spec.loader import load_spec
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.factory import open_storage
from tests.support.cli import tiny_sweep
from trainables.preflight.network_case import NetworkReport, case_id

# 300 digits, a tenth of them for validation, in batches of 50: 5.4 steps an epoch; 2 epochs, warm-ups of 0, 1 and 2.
STEPS = 5.4


@pytest.fixture
def tiny(tmp_path: Path) -> tuple[Any, SweepFolder]:
    storage = open_storage(str(tmp_path / "runs"), create=True)
    plan = make_plan(load_spec(str(tiny_sweep(tmp_path)), ["method=snip"]), storage, hash_data=True)
    return plan, SweepFolder(storage, "tiny")


def test_steps_are_those_of_its_epochs_and_scores(tiny: tuple[Any, SweepFolder]) -> None:
    plan, folder = tiny
    queue = make_queue(plan, folder.storage, lambda key: True)
    steps = {}
    for trial in plan.trials:
        steps[trial.name] = training_steps(trial.config, queue.trials[trial.key], plan.data_facts)
    for trial in plan.trials:
        rounds = trial.config.rounds
        assert steps[trial.name] == pytest.approx(STEPS * trial.config.sparse_epochs + rounds), trial.name
    (warmup,) = queue.warmups.values()
    assert training_steps(plan.trials[0].config, warmup, plan.data_facts) == pytest.approx(STEPS * 2)


def test_seconds_are_known_where_the_network_was_measured(tiny: tuple[Any, SweepFolder]) -> None:
    plan, folder = tiny
    trial = plan.trials[0]
    stage = make_queue(plan, folder.storage, lambda key: True).trials[trial.key]
    assert PredictedDurations(plan, folder)(stage) is None
    report = NetworkReport(case=case_id(trial.config), model="convnet", findings=(), adjusted={}, seconds=1.0, step_seconds=2.0)
    entry = {"depends": {}, "report": report.to_json()}
    folder.storage.write_json(folder.file(RECORD), {case_id(trial.config): entry})
    steps = training_steps(trial.config, stage, plan.data_facts)
    assert PredictedDurations(plan, folder)(stage) == pytest.approx(2.0 * steps)
    folder.storage.write_json(stored_file(plan, trial.config.dataset, "json"), {"seconds": 7.0})
    assert PredictedDurations(plan, folder)(stage) == pytest.approx(2.0 * steps + 7.0)
