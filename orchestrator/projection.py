"""What of a plan is shown in MLflow: which runs, under which names, params and tags."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from orchestrator.command_line import command
from orchestrator.data_process import preflight_artifacts
from orchestrator.errors import SetupError, SweepError, UserError
from orchestrator.mirror import SweepOpening
from orchestrator.mlflow_client import SQLITE, TrackingTarget, database_file
from orchestrator.plan import Plan, recorded_plan
from orchestrator.results import flat
from orchestrator.run_records import Item
from orchestrator.spec import SweepSpec, spec_from_resolved
from orchestrator.state import SweepFolder, SweepState, driver_alive
from orchestrator.storage import Storage
from orchestrator.tracking_database import NAME as DATABASE
from orchestrator.tracking_database import Remark, database_id
from trainables.config import TrialConfig
from trainables.keys import complete

AXES = ("sparsity", "warmup_epochs", "prune_iterations", "seed")


def tracking_target(spec: SweepSpec, storage: Storage) -> TrackingTarget:
    """Where the runs of a sweep go: the URI that was given, else a SQLite file in the storage; artifacts beside such a file.

    Raises:
        UserError: no URI was given, and the storage is no folder.
    """
    uri = spec.tracking.uri
    if uri is None:
        root = storage.folder
        if root is None:
            raise UserError(
                f"tracking.uri must be given, since storage {storage.root} is no folder that could hold MLflow's database; "
                "give --tracking-uri, such as http://mlflow:5000"
            )
        return storage_target(root, spec.tracking.experiment)
    return given_target(uri, spec.tracking.experiment)


def storage_target(folder: Path, experiment: str) -> TrackingTarget:
    """The database in a storage's folder, and its artifacts there.

    Raises:
        UserError: MLflow would take the folder's name for another one.
    """
    name = str(folder)
    escapes = re.search(r"\?|%[0-9a-fA-F]{2}|[\udc80-\udcff]", name)
    if escapes:
        raise UserError(
            "storage must be a folder without '?', %XX and bytes that are no UTF-8 in its path, since MLflow's database there "
            f"is named by a URI, got {escapes[0]!a} in {name!a}; rename the folder, or give a tracking server with "
            "--tracking-uri"
        )
    return TrackingTarget(
        uri=f"{SQLITE}{folder / DATABASE}", experiment=experiment, artifact_root=str(folder / "artifacts"), storage=name
    )


def given_target(uri: str, experiment: str) -> TrackingTarget:
    """A tracking URI that was given; artifacts lie beside a SQLite file."""
    database = database_file(uri)  # without a word MLflow would put artifacts into the current folder
    if database is None:
        return TrackingTarget(uri=uri, experiment=experiment, artifact_root=None)
    if not database.is_absolute():
        uri = uri.replace(SQLITE, f"{SQLITE}{quote(str(Path.cwd()))}/", 1)
    return TrackingTarget(uri=uri, experiment=experiment, artifact_root=str(database.absolute().parent / "artifacts"))


def make_items(plan: Plan) -> dict[str, Item]:
    """Trial key or warm-up key -> its run."""
    items: dict[str, Item] = {}
    for trial in plan.trials:
        params = _params(trial.config, plan.spec)
        tags = {"drive.warmup_key": trial.warmup_key} if trial.shares else {}
        items[trial.key] = Item(key=trial.key, name=trial.name, role="trial", params=params, tags=tags)
    for warmup in plan.warmups() if plan.spec.share_warmups else ():
        config = warmup.config
        params = {"seed": str(config.seed), "model": config.model, "dataset": config.dataset.name}
        params["warmup_epochs"] = str(warmup.lengths[-1])
        items[warmup.key] = Item(key=warmup.key, name=warmup.name, role="warmup", params=params, tags={})
    return items


def _params(config: TrialConfig, spec: SweepSpec) -> dict[str, str]:
    """The search axes, method, model, data set and seed; the rest of a configuration is in the record."""
    values = flat(complete(config)) | {"prune_iterations": config.rounds}  # imp has as many as its sparsity takes
    keys = [*AXES, *(key for key in spec.search if key not in AXES), "method", "model"]
    if config.rounds == 0:
        keys.remove("prune_iterations")
    return {key: str(values[key]) for key in keys if key in values} | {"dataset": config.dataset.name}


def sweep_opening(plan: Plan, storage: Storage) -> SweepOpening:
    """What it takes to open the sweep's projection: its target, and description, params and tags of its own run."""
    spec = plan.spec
    axes = "\n".join(f"- `{key}`: {', '.join(map(str, values))}" for key, values in spec.search.items())
    return SweepOpening(
        target=tracking_target(spec, storage),
        storage=storage,
        sweep=spec.name,
        log_models=spec.tracking.models == "all",
        trial_keys=tuple(trial.key for trial in plan.trials),
        description=f"DRIVE sweep **{spec.name}**: {len(plan.trials)} trials of {spec.model} on {spec.dataset.name}\n\n{axes}",
        params={"model": spec.model, "dataset": spec.dataset.name, "trials": str(len(plan.trials))},
        tags={"drive.data_digest": plan.data_digest or ""},
    )


def item_states(plan: Plan, state: SweepState, items: dict[str, Item]) -> list[tuple[Item, str]]:
    """Every run of the sweep with the state that it must show."""
    states = {status.key: status.state for status in state.entries()}
    finished = {trial.key for trial in plan.trials if trial.result is not None}
    return [(item, "finished" if key in finished else states.get(key, "waiting")) for key, item in items.items()]


def sweep_status(state: SweepState) -> str:
    """The status of the sweep's own run when nothing of it runs."""
    counts = state.counts()
    if counts["finished"] == len(state.trials):
        return "FINISHED"
    return "FAILED" if counts["failed"] else "KILLED"


def sync_sweep(folder: SweepFolder, plan: Plan) -> dict[str, Any]:
    """Brings MLflow up to date from the trial folders, and tells how many runs it shows; again changes nothing.

    Raises:
        SetupError: the sweep is running (its driver does this itself), or MLflow cannot be reached.
    """
    from orchestrator.driver import initial_state
    from orchestrator.report import write_report
    from orchestrator.stages import StageQueue

    known, is_there = folder.read_state(), folder.storage.exists(folder.file("state.json"))
    state = known or SweepState(sweep=folder.name)
    if known is None and is_there:  # damaged: the records tell what it held
        state = initial_state(plan, None, StageQueue(trunks={}, trials={}))
    if driver_alive(state.driver):
        raise SetupError(f"sweep {folder.name!r} is running, and its driver keeps MLflow up to date; sync when it has ended")
    items = make_items(plan)
    opening = sweep_opening(plan, folder.storage)
    started = [trial.result["started_ms"] for trial in plan.trials if trial.result is not None]
    mirror = opening.opened(start_ms=min(started, default=None), reopen=False)
    mirror.reconcile(item_states(plan, state, items))
    mirror.close_sweep(sweep_status(state), write_report(folder, state) | preflight_artifacts(plan, folder.storage))
    run_ids = mirror.run_ids()
    for status in state.entries():
        status.mlflow_run_id = run_ids.get(status.key, status.mlflow_run_id)
    state.parent_run_id, state.experiment_id = mirror.parent_run_id, mirror.experiment_id
    state.tracking_database = mirror.database
    state.tracking_pending, state.tracking_error = 0, None
    folder.write_state(state)
    return {"uri": opening.target.uri, "runs": len(run_ids), "parent_run_id": mirror.parent_run_id}


def plan_of(folder: SweepFolder, tracking_uri: str | None = None) -> Plan:
    """The plan of a sweep as its own files have it; `tracking_uri` takes the place of theirs.

    Raises:
        UserError: the code makes other keys of the sweep's configurations than the code that ran it.
    """
    spec = spec_from_resolved(folder.storage.read_json(folder.file("spec.json"), fields=("tracking",)))
    spec = spec.model_copy(update={"storage": folder.storage.root})
    if tracking_uri:
        spec = spec.model_copy(update={"tracking": spec.tracking.model_copy(update={"uri": tracking_uri})})
    record = folder.storage.read_json(folder.file("trials.json"), fields=("trials", "data_digest"))
    if record is None:
        raise UserError(
            f"{folder.file('trials.json')} of storage {folder.storage.root} must be what the sweep wrote, got another content; "
            f"`{command('resume', folder.name)}` writes it anew"
        )
    plan = recorded_plan(spec, folder.storage, record)
    if {one["key"] for one in record["trials"]} != {one.key for one in plan.trials}:
        raise UserError(
            f"sweep {folder.name!r} was run by code with other numerics, so its records cannot be told from the sweep file; "
            "use that version, or run the sweep again"
        )
    return plan


def is_in_present_database(spec: SweepSpec, storage: Storage, state: SweepState) -> bool:
    """Whether the run ids of a state are of the database that the storage has now; yes for runs that are elsewhere."""
    target = tracking_target(spec, storage)
    return target.storage is None or database_id(Path(target.storage, DATABASE)) == state.tracking_database


def sync_sweeps_left_behind(storage: Storage, remark: Remark) -> None:
    """Brings the other sweeps whose runs were in a former database of this storage into the present one.

    What cannot be brought there is told with the reason; the sweep that runs does it itself.
    """
    for name in storage.names("sweeps"):
        folder = SweepFolder(storage, name)
        state, record = folder.read_state(), storage.read_json(folder.file("spec.json"))
        if state is None or record is None or not state.experiment_id or driver_alive(state.driver):
            continue
        try:
            if not is_in_present_database(spec_from_resolved(record), storage, state):
                facts = sync_sweep(folder, plan_of(folder))
                remark(f"MLflow shows {facts['runs']} runs of sweep {name!r} again, from the trial folders")
        except SweepError as error:
            remark(f"sweep {name!r} is not in the new MLflow database: {error}")
