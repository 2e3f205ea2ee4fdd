"""A finished sweep of real trials in a storage, with its runs, models and registered model in the storage's MLflow database."""

from __future__ import annotations

import shutil
from pathlib import Path

from orchestrator.execution.driver import initial_state
from orchestrator.execution.summarizing import sweep_summary
from orchestrator.execution.sweep_files import write_sweep_files
from orchestrator.planning.plan import Plan, make_plan
from orchestrator.scheduling.stage_queue import StageQueue
from orchestrator.spec.loader import load_spec
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.factory import open_storage
from orchestrator.storage.layout import StageFolders
from orchestrator.tracking.client import TrackingTarget
from orchestrator.tracking.plan_runs import item_states, planned_runs, sweep_run_spec
from orchestrator.tracking.target import storage_target
from tests.support.mlflow_stores import new_target
from tests.support.trials import tiny_settings
from trainables.config.keys import canonical
from trainables.worker.stage import Stage
from trainables.worker.trainable import execute_stage

NAME = "whole"
TEXT = f"""\
name: {NAME}
dataset: {{name: digits, limit: 50, validation: 0.2}}
model: convnet
search: {{warmup_epochs: [2], prune_iterations: [2], sparsity: [0.9], seed: [0, 1]}}
training: {{epochs: 2, batch_size: 20, lr: 0.05}}
baseline: none
precision: fp32
"""


def whole_sweep(root: Path, *, track: bool = True) -> SweepFolder:
    """The sweep: two trials of two seeds, each with a warm-up that others could share."""
    root.mkdir(parents=True, exist_ok=True)
    storage, file = open_storage(str(root / "runs"), create=True), root / "sweep.yaml"
    file.write_text(TEXT)
    spec = load_spec(str(file), [f"storage={storage.root}"])
    folder = SweepFolder(storage, NAME)
    plan = make_plan(spec, storage, hash_data=True)
    write_sweep_files(folder, plan, TEXT)
    for stage in _stages(plan):
        settings = tiny_settings(StageFolders(storage, NAME), share_warmups=True)
        ended = execute_stage(stage, settings, lambda report: None)
        assert ended["status"] == "finished", ended
    plan = make_plan(spec, storage, hash_data=True)
    folder.write_state(initial_state(plan, None, StageQueue(warmups={}, trials={})))
    if track:
        new_target(root / "runs")
        _track(folder, plan)
    return folder


def _track(folder: SweepFolder, plan: Plan) -> None:
    """What `sync` does, without the figures of the report, which take seconds."""
    state = folder.read_state()
    assert state is not None
    items = planned_runs(plan)
    sync = sweep_run_spec(plan, folder.storage).open(reopen=False)
    sync.reconcile(item_states(plan, state, items))
    sync.close_sweep("FINISHED", sweep_summary(folder, state, "", report=False))
    for status in state.all_stages():
        status.mlflow_run_id = sync.run_ids()[status.key]
    state.parent_run_id, state.experiment_id, state.tracking_database = sync.parent_run_id, sync.experiment_id, sync.database
    folder.write_state(state)


def _stages(plan: Plan) -> list[Stage]:
    stages = [
        Stage(kind="warmup", key=one.key, name=one.name, config=canonical(one.config), attempt=1, lengths=one.lengths)
        for one in plan.warmups()
    ]
    for trial in plan.trials:
        config = canonical(trial.config)
        shared = trial.warmup_key
        stages.append(
            Stage(kind="trial", key=trial.key, name=trial.name, config=config, attempt=1, warmup_key=shared, lengths=())
        )
    return stages


def copied(folder: SweepFolder, root: Path) -> SweepFolder:
    """The sweep in a copy of its storage, artifacts included."""
    shutil.copytree(folder.storage.root, root / "runs")
    return SweepFolder(open_storage(str(root / "runs")), folder.name)


def target_of(folder: SweepFolder) -> TrackingTarget:
    """Its MLflow store."""
    return storage_target(Path(folder.storage.root), "drive-sweep")
