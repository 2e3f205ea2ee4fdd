"""Writes the files that define a sweep into its folder."""

from __future__ import annotations

from pathlib import Path

from orchestrator.planning.plan import Plan
from orchestrator.spec.loader import resolved
from orchestrator.state.sweep_folder import SweepFolder


def write_sweep_files(folder: SweepFolder, plan: Plan, spec_text: str) -> None:
    """Writes the sweep file, the resolved specification and the trials, before anything runs."""
    folder.clear_stop_requests()
    trials = [
        {"key": trial.key, "name": trial.name, "warmup_key": trial.warmup_key if trial.uses_shared_warmup else None}
        for trial in plan.trials
    ]
    folder.storage.write(folder.file("sweep.yaml"), spec_text.encode())
    spec = resolved(plan.spec)
    if plan.spec.dataset.root is not None:  # `resume` may be called from another folder
        spec["dataset"]["root"] = str(Path(plan.spec.dataset.root).expanduser().absolute())
    spec |= {"modules_path": plan.custom_files.modules_path, "initial_weights": plan.custom_files.initial_weights}
    record = {
        "data_digest": plan.data_digest,
        "data_facts": plan.data_facts and plan.data_facts.to_json(),
        "own_digests": plan.custom_files.digests,
        "trials": trials,
    }
    folder.storage.write_json(folder.file("spec.json"), spec)
    folder.storage.write_json(folder.file("trials.json"), record)
