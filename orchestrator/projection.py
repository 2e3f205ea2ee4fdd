"""What of a plan is shown in MLflow: which runs, under which names, params and tags. Read by: sweep.py, commands.py."""

from __future__ import annotations

from typing import Any

from orchestrator.errors import SetupError, UserError
from orchestrator.mirror import SweepOpening
from orchestrator.mlflow_client import TrackingTarget, database_file
from orchestrator.plan import Plan
from orchestrator.results import flat
from orchestrator.run_records import Item
from orchestrator.spec import SweepSpec
from orchestrator.state import SweepFolder, SweepState, driver_alive
from orchestrator.storage import Storage
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
        return TrackingTarget(
            uri=f"sqlite:///{root / 'mlflow.db'}", experiment=spec.tracking.experiment, artifact_root=str(root / "artifacts")
        )
    return given_target(uri, spec.tracking.experiment)


def given_target(uri: str, experiment: str) -> TrackingTarget:
    """A tracking URI that was given; artifacts lie beside a SQLite file."""
    database = database_file(uri)  # without a word MLflow would put artifacts into the current folder
    beside = None if database is None else str(database.absolute().parent / "artifacts")
    return TrackingTarget(uri=uri, experiment=experiment, artifact_root=beside)


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
    from orchestrator.report import write_report

    state = folder.read_state() or SweepState(sweep=folder.name)
    if driver_alive(state.driver):
        raise SetupError(f"sweep {folder.name!r} is running, and its driver keeps MLflow up to date; sync when it has ended")
    items = make_items(plan)
    opening = sweep_opening(plan, folder.storage)
    started = [trial.result["started_ms"] for trial in plan.trials if trial.result is not None]
    mirror = opening.opened(start_ms=min(started, default=None), reopen=False)
    mirror.reconcile(item_states(plan, state, items))
    mirror.close_sweep(sweep_status(state), write_report(folder, state))
    run_ids = mirror.run_ids()
    for status in state.entries():
        status.mlflow_run_id = run_ids.get(status.key, status.mlflow_run_id)
    state.parent_run_id, state.experiment_id = mirror.parent_run_id, mirror.experiment_id
    state.tracking_pending, state.tracking_error = 0, None
    folder.write_state(state)
    return {"uri": opening.target.uri, "runs": len(run_ids), "parent_run_id": mirror.parent_run_id}
