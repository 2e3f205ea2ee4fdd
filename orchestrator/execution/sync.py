"""Brings MLflow up to date from the trial folders, without a driver."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.command_line import command
from orchestrator.errors import SetupError, SweepError, UserError
from orchestrator.execution.driver import initial_state
from orchestrator.execution.summarizing import sweep_summary, with_report
from orchestrator.planning.plan import Plan
from orchestrator.preflight.data import preflight_artifacts
from orchestrator.scheduling.stage_queue import StageQueue
from orchestrator.search.plans import plan_from_record
from orchestrator.spec.loader import spec_from_resolved
from orchestrator.spec.schema import SweepSpec
from orchestrator.state.driver_lease import LEASE_TIMES, LeaseTimes
from orchestrator.state.driver_liveness import driver_alive
from orchestrator.state.sweep_folder import SweepFolder, open_sweep
from orchestrator.state.sweep_state import SweepState
from orchestrator.storage.base import Storage
from orchestrator.tracking.database import Notify
from orchestrator.tracking.database_file import NAME as DATABASE
from orchestrator.tracking.database_file import database_id
from orchestrator.tracking.plan_runs import item_states, planned_runs, sweep_run_spec, sweep_status
from orchestrator.tracking.target import tracking_target


def sync_sweep(folder: SweepFolder, tracking_uri: str | None = None, times: LeaseTimes = LEASE_TIMES) -> dict[str, Any]:
    """Brings MLflow up to date from the trial folders, and returns how many runs it shows; idempotent.

    It holds the sweep's lease: MLflow cannot find or create a run in one step, so two at a time would make it twice.

    Args:
        tracking_uri: in place of that of the sweep's files.

    Raises:
        SetupError: the sweep is running (its driver does this itself), or MLflow cannot be reached.
        UserError: the sweep is gone, or its records were written by other code.
    """
    state = folder.read_state()
    if state is not None and driver_alive(state.driver):
        raise SetupError(
            f"sweep {folder.name!r} is running, and its driver keeps MLflow up to date",
            "sync when it has ended",
            code="sweep-running",
        )
    with folder.driver_lease(times):
        open_sweep(folder.storage, folder.name)
        return sync_with_lease(folder, plan_of(folder, tracking_uri))


def sync_with_lease(folder: SweepFolder, plan: Plan) -> dict[str, Any]:
    """`sync_sweep` by a process that holds the sweep's lease; the plan was made under it."""
    stored, exists = folder.read_state(), folder.storage.exists(folder.file("state.json"))
    state = stored or SweepState(sweep=folder.name)
    if stored is None and exists:  # damaged: restored from the records
        state = initial_state(plan, None, StageQueue(warmups={}, trials={}))
    items = planned_runs(plan)
    sweep_run = sweep_run_spec(plan, folder.storage)
    started = [trial.result["started_ms"] for trial in plan.trials if trial.result is not None]
    sync = sweep_run.open(start_ms=min(started, default=None), reopen=False)
    sync.reconcile(item_states(plan, state, items))
    summary = replace(sweep_summary(folder, state, sweep_run.description), artifacts=preflight_artifacts(plan, folder.storage))
    sync.close_sweep(sweep_status(state), with_report(summary, folder, state))
    run_ids = sync.run_ids()
    for status in state.all_stages():
        status.mlflow_run_id = run_ids.get(status.key, status.mlflow_run_id)
    state.parent_run_id, state.experiment_id, state.identity = sync.parent_run_id, sync.experiment_id, sweep_run.identity
    state.tracking_database = sync.database
    state.tracking_pending, state.tracking_error = 0, None
    folder.write_state(state)
    return {"uri": sweep_run.target.uri, "runs": len(run_ids), "parent_run_id": sync.parent_run_id}


def plan_of(folder: SweepFolder, tracking_uri: str | None = None) -> Plan:
    """The plan of a sweep from the files of its folder; `tracking_uri` replaces theirs.

    Raises:
        UserError: the sweep was run by code whose trial keys differ from this code's.
    """
    spec = recorded_spec(folder, tracking_uri)
    record = folder.storage.read_json(folder.file("trials.json"), fields=("trials", "data_digest"))
    if record is None:
        raise UserError(
            f"{folder.file('trials.json')} of storage {folder.storage.root} must be as the sweep wrote it, got other content",
            f"`{command('resume', folder.name)}` writes it again",
            code="sweep-file-damaged",
        )
    plan = plan_from_record(spec, folder.storage, record)
    recorded, planned = {one["key"] for one in record["trials"]}, {one.key for one in plan.trials}
    if not recorded <= planned or (recorded != planned and not spec.is_search):
        raise UserError(
            f"sweep {folder.name!r} was run by code with other numerics, so the trial keys of its records differ",
            "use that version, or run the sweep again",
            code="numerics-differ",
        )
    return plan


def recorded_spec(folder: SweepFolder, tracking_uri: str | None = None) -> SweepSpec:
    """The specification of a sweep from its folder; `tracking_uri` replaces its own."""
    spec = spec_from_resolved(folder.storage.read_json(folder.file("spec.json"), fields=("tracking",)))
    tracking = spec.tracking.model_copy(update={"uri": tracking_uri}) if tracking_uri else spec.tracking
    return spec.model_copy(update={"storage": folder.storage.root, "tracking": tracking})


def is_in_present_database(spec: SweepSpec, storage: Storage, state: SweepState) -> bool:
    """Whether the run ids of a state belong to the storage's present database; True for runs in another store."""
    target = tracking_target(spec, storage)
    return target.storage is None or database_id(Path(target.storage, DATABASE)) == state.tracking_database


def sync_sweeps_left_behind(storage: Storage, notify: Notify) -> None:
    """Restores the runs of other sweeps that were in a former database of this storage.

    Reports each sweep that cannot be restored, with the reason. A running sweep restores its own runs.
    """
    for name in storage.names("sweeps"):
        folder = SweepFolder(storage, name)
        state, record = folder.read_state(), storage.read_json(folder.file("spec.json"))
        if state is None or record is None or not state.experiment_id or driver_alive(state.driver):
            continue
        try:
            if not is_in_present_database(spec_from_resolved(record), storage, state):
                facts = sync_sweep(folder)
                notify(f"MLflow shows {facts['runs']} runs of sweep {name!r} again, from the trial folders")
        except SweepError as error:
            notify(f"sweep {name!r} is not in the new MLflow database: {error}")
