"""Writes the files that define a sweep into its folder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from orchestrator.planning.entries import PlannedTrial
from orchestrator.planning.plan import Plan
from orchestrator.spec.loader import resolved
from orchestrator.state.sweep_folder import DELETING, SweepFolder

TRIALS_INTERVAL_S = 10.0  # between two writes of trials.json while a search adds trials


def write_sweep_files(folder: SweepFolder, plan: Plan, spec_text: str) -> None:
    """Writes the sweep file, the resolved specification and the trials, before anything runs."""
    folder.clear_stop_requests()
    folder.storage.remove(folder.file(DELETING))  # a deletion that was interrupted is called off
    folder.storage.write(folder.file("sweep.yaml"), spec_text.encode())
    spec = resolved(plan.spec)
    if plan.spec.dataset.root is not None:  # `resume` may be called from another folder
        spec["dataset"]["root"] = str(Path(plan.spec.dataset.root).expanduser().absolute())
    files = plan.custom_files
    spec |= {"modules_path": files.modules_path, "initial_weights": files.initial_weights, "timings": files.timings}
    folder.storage.write_json(folder.file("spec.json"), spec)
    write_trials(folder, plan)


def write_trials(folder: SweepFolder, plan: Plan) -> None:
    """Writes trials.json."""
    assert plan.inputs is not None
    record = plan.inputs.to_record() | plan.accepted.to_record() | {"trials": _entries(plan.trials)}
    folder.storage.write_json(folder.file("trials.json"), record)


def _entries(trials: Sequence[PlannedTrial]) -> list[dict[str, str | None]]:
    return [
        {"key": trial.key, "name": trial.name, "warmup_key": trial.warmup_key if trial.uses_shared_warmup else None}
        for trial in trials
    ]


class GrowingTrials:
    """Keeps trials.json up to date while a search adds trials; its decisions are the record, so it may be seconds late."""

    def __init__(self, folder: SweepFolder) -> None:
        self.folder = folder
        self.written_at = time.monotonic()

    def update(self, plan: Plan) -> None:
        """Writes the file if the last write was some time ago."""
        if time.monotonic() - self.written_at >= TRIALS_INTERVAL_S:
            self.write(plan)

    def write(self, plan: Plan) -> None:
        write_trials(self.folder, plan)
        self.written_at = time.monotonic()
