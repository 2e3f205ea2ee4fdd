"""Runs, models and registered models in MLflow that are not what the records of their sweep say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from orchestrator.errors import SweepError
from orchestrator.execution.summarizing import sweep_summary
from orchestrator.execution.sync import plan_of, sync_with_lease
from orchestrator.planning.plan import Plan
from orchestrator.repair.mismatch import Mismatch, Scope
from orchestrator.repair.sweep_state import known_plan
from orchestrator.state.sweep_folder import RENAMED, SweepFolder
from orchestrator.state.sweep_state import SweepState
from orchestrator.tracking.client import as_setup_error
from orchestrator.tracking.plan_runs import item_states, planned_runs, sweep_run_spec
from orchestrator.tracking.read_only import View, view
from orchestrator.tracking.registry_differences import registry_differences
from orchestrator.tracking.run_differences import Difference, Prepare, run_differences
from orchestrator.tracking.run_sync import RunSync
from orchestrator.tracking.sweep_run import SweepRunSpec

REMEDY = "brings MLflow up to date from the trial folders; what cannot stay is tagged drive.superseded"
Differences = Callable[[SweepFolder, Plan, SweepState, RunSync], Iterator[Difference]]


def wrong_runs(scope: Scope) -> Iterator[Mismatch]:
    """Runs that are missing, doubled, of no trial, left RUNNING, or show other points or models than the records."""
    yield from _compared(scope, _run_differences)


def wrong_registrations(scope: Scope) -> Iterator[Mismatch]:
    """Registered models whose aliases, versions or texts are not those of the recommended trials."""
    yield from _compared(scope, _registry_differences)


def _compared(scope: Scope, differences: Differences) -> Iterator[Mismatch]:
    for folder in scope.sweeps():
        plan, state = known_plan(folder), folder.read_state()
        if plan is None or state is None or not _was_tracked(folder, state):
            continue
        try:
            yield from _of_sweep(folder, plan, state, differences)
        except SweepError as error:
            place = f"sweep {folder.name!r}: {error.message}"
            yield Mismatch(kind="MLflow cannot be compared", place=place, remedy=error.hint, mend=None)


def _was_tracked(folder: SweepFolder, state: SweepState) -> bool:
    """Whether MLflow should show the sweep: it has, or something has finished."""
    return bool(state.parent_run_id or state.tracking_pending or any(one.state != "waiting" for one in state.trials.values()))


def _of_sweep(folder: SweepFolder, plan: Plan, state: SweepState, differences: Differences) -> Iterator[Mismatch]:
    spec = sweep_run_spec(plan, folder.storage, read_only=True)
    now = view(spec.target)
    found: list[Difference] = []
    if now.problem:
        if differences is _run_differences:
            found = [Difference(kind="MLflow lacks the sweep", place=f"sweep {folder.name!r}: {now.problem}", prepare=_nothing)]
    elif folder.storage.exists(folder.file(RENAMED)):
        if differences is _run_differences:
            found = [Difference(kind="former name in MLflow", place=f"sweep {folder.name!r}", prepare=_nothing)]
    else:
        found = list(differences(folder, plan, state, spec.sync(connection=(now.client, now.experiment_id))))
    sync = partial(_sync, folder)
    for one in found:
        yield Mismatch(
            kind=one.kind,
            place=one.place,
            remedy=one.hint if one.prepare is None else REMEDY,
            mend=None if one.prepare is None else partial(_prepare, spec, now, one.prepare),
            sweeps=frozenset({folder.name}),
            afterwards=None if one.prepare is None else sync,
        )


def _run_differences(folder: SweepFolder, plan: Plan, state: SweepState, sync: RunSync) -> Iterator[Difference]:
    ids = {one.key: one.mlflow_run_id for one in state.all_stages()} | {"": state.parent_run_id}
    return run_differences(sync, item_states(plan, state, planned_runs(plan)), ids)


def _registry_differences(folder: SweepFolder, plan: Plan, state: SweepState, sync: RunSync) -> Iterator[Difference]:
    if not sync.log_models:
        return iter(())
    sync.runs.load()
    return registry_differences(sync, sweep_summary(folder, state, "", report=False).recommended)


def _prepare(spec: SweepRunSpec, now: View, prepare: Prepare) -> None:
    with as_setup_error(spec.target.uri):
        prepare(now.client and now.client.writable())


def _sync(folder: SweepFolder) -> None:
    sync_with_lease(folder, plan_of(folder))


def _nothing(client: object) -> None:
    """The sync alone puts it right."""
