"""A sweep on digits whose trials have really been computed, without Ray."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.api.sweep import Sweep
from orchestrator.execution.driver import initial_state, make_queue
from orchestrator.execution.sweep_files import write_sweep_files
from orchestrator.planning.plan import make_plan
from orchestrator.spec.loader import load_spec
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.local import LocalStorage
from tests.support.cli import tiny_sweep
from tests.support.trials import run

SETTINGS = [
    "name=digits",
    "dataset.limit=50",
    "training.batch_size=20",
    "search.warmup_epochs=[0, 1]",
    "search.prune_iterations=[1]",
    "search.seed=[0, 1]",
]


@pytest.fixture(scope="package")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds the storage `runs`; the last trial has failed."""
    folder = tmp_path_factory.mktemp("computed")
    storage, file = LocalStorage(str(folder / "runs")), tiny_sweep(folder)
    spec = load_spec(str(file), SETTINGS)
    for trial in make_plan(spec, storage, hash_data=True).trials[:-1]:
        run(trial.config, storage)
    plan = make_plan(spec, storage, hash_data=True)
    sweep = SweepFolder(storage, "digits")
    write_sweep_files(sweep, plan, file.read_text())
    state = initial_state(plan, None, make_queue(plan, storage, lambda key: False))
    failed = state.trials[plan.trials[-1].key]
    failed.state, failed.error = "failed", "the training loss became nan"
    sweep.write_state(state)
    return folder


@pytest.fixture
def sweep(computed: Path) -> Sweep:
    return Sweep(SweepFolder(LocalStorage(str(computed / "runs")), "digits"))
