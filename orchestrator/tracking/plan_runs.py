"""The MLflow runs of a plan: their names, params, tags and states."""

from __future__ import annotations

from orchestrator.planning.plan import Plan
from orchestrator.spec.schema import SweepSpec
from orchestrator.state.earlier_files import files_text
from orchestrator.state.storage_identity import ensure_identity, known_identity
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.state.sweep_state import SweepState
from orchestrator.storage.base import Storage
from orchestrator.tracking.plan_text import plan_text
from orchestrator.tracking.records import RunSpec
from orchestrator.tracking.sweep_run import SweepRunSpec
from orchestrator.tracking.target import tracking_target
from trainables.config.keys import complete, flatten
from trainables.config.trial import AXES, TrialConfig


def planned_runs(plan: Plan) -> dict[str, RunSpec]:
    """Trial key or warm-up key -> its MLflow run."""
    items: dict[str, RunSpec] = {}
    for trial in plan.trials:
        params = _params(trial.config, plan.spec)
        tags = {"drive.warmup_key": trial.warmup_key} if trial.uses_shared_warmup else {}
        tags |= plan.tags.get(trial.key, {})
        tags |= {"drive.earlier_files": files_text(files)} if (files := plan.accepted.finished.get(trial.key)) else {}
        items[trial.key] = RunSpec(key=trial.key, name=trial.name, role="trial", params=params, tags=tags)
    for warmup in plan.warmups() if plan.spec.share_warmups else ():
        config = warmup.config
        params = {"seed": str(config.seed), "model": config.model, "dataset": config.dataset.name}
        params["warmup_epochs"] = f"auto, at most {warmup.lengths[-1]}" if config.warmup.auto else str(warmup.lengths[-1])
        items[warmup.key] = RunSpec(key=warmup.key, name=warmup.name, role="warmup", params=params, tags={})
    return items


def _params(config: TrialConfig, spec: SweepSpec) -> dict[str, str]:
    """The search axes, method, model, data set and seed; the rest of a configuration is in the record."""
    values = flatten(complete(config)) | {"warmup_epochs": config.warmup_label}
    values["prune_iterations"] = config.iterations_label  # imp derives them from its sparsity
    keys = [*AXES, *(key for key in spec.search if key not in AXES), "method", "model"]
    if config.rounds == 0:
        keys.remove("prune_iterations")
    return {key: str(values[key]) for key in keys if key in values} | {"dataset": config.dataset.name}


def sweep_run_spec(plan: Plan, storage: Storage, *, read_only: bool = False) -> SweepRunSpec:
    """What opens the sweep's run: the tracking target, and the description, params and tags of the run.

    Args:
        read_only: give the storage no identity if it has none; otherwise the caller holds the sweep's lease.
    """
    spec, folder = plan.spec, SweepFolder(storage, plan.spec.name)
    target = tracking_target(spec, storage)
    identity = "" if target.storage else (known_identity if read_only else ensure_identity)(folder)
    return SweepRunSpec(
        target=target,
        storage=storage,
        sweep=spec.name,
        identity=identity,
        log_models=spec.tracking.models == "all",
        trial_keys=tuple(trial.key for trial in plan.trials),
        description=plan_text(plan, storage),
        params={"model": spec.model, "dataset": spec.dataset.name}
        | ({} if spec.is_search else {"trials": str(len(plan.trials))}),
        tags={"drive.data_digest": plan.data_digest or ""},
    )


def item_states(plan: Plan, state: SweepState, items: dict[str, RunSpec]) -> list[tuple[RunSpec, str]]:
    """Every run of the plan with the state that MLflow must show."""
    states = {status.key: status.state for status in state.all_stages()}
    finished = {trial.key for trial in plan.trials if trial.result is not None}
    return [(item, "finished" if key in finished else states.get(key, "waiting")) for key, item in items.items()]


def sweep_status(state: SweepState) -> str:
    """The MLflow status of the sweep's run once nothing runs any more."""
    if state.is_complete:
        return "FINISHED"
    return "FAILED" if state.counts()["failed"] else "KILLED"
