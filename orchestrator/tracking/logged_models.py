"""Uploads a trial's sparse model as an MLflow logged model, once, also if an upload is cut off; run_outputs.py asks for it.

MLflow has no exclusive creation, but a model exists as "pending" from its first call to its last. So a ready model is
complete, and one in any other state is the rest of an upload that died. No fluent API: it would need a global tracking URI and
an active run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.tracking.database_locations import local_folder
from orchestrator.tracking.model_packaging import ARTIFACTS, SparseModelRecord, write_served_model
from orchestrator.tracking.runs import SUPERSEDED, pages

MODEL_TYPE = "sparse-classifier"
KEYS_PER_SEARCH = 100  # their models are mostly one page of answers; MLflow's parser of filters takes at most some thousands


@dataclass(frozen=True, kw_only=True, slots=True)
class LoggedModelInfo:
    """A logged model of the experiment."""

    model_id: str
    sha256: str
    sweep: str
    source_run_id: str
    created_ms: int
    ready: bool
    location: str


class SweepModels:
    """The experiment's models of a sweep's trials, whoever uploaded them: looked up once for all trials, then remembered.

    Another sweep that finishes the same trial meanwhile changes them; then `find` is called with `again`.
    """

    def __init__(self, client: Any, experiment_id: str) -> None:
        self.client = client
        self.experiment_id = experiment_id
        self._by_key: dict[str, dict[str, LoggedModelInfo]] = {}
        self._to_look_up: set[str] = set()

    def invalidate(self, trial_keys: Iterable[str]) -> None:
        """Makes the next use of one of these trials look up the models of all of them again, with one search."""
        self._to_look_up.update(trial_keys)

    def is_ready(self, trial_key: str, model_id: str) -> bool:
        model = self.get(trial_key, model_id)
        return model is not None and model.ready

    def get(self, trial_key: str, model_id: str) -> LoggedModelInfo | None:
        """A model of the trial by its id; None if there is none."""
        return self._of(trial_key).get(model_id)

    def find(self, trial_key: str, sha256: str, run_id: str, *, again: bool = False) -> LoggedModelInfo | None:
        """The ready model of these weights: the run's own, else the oldest one of the experiment.

        What an upload for this run left unfinished is deleted. `again` asks MLflow again if none is known.
        """
        equal = [model for model in self._of(trial_key).values() if model.sha256 == sha256]
        ready = [model for model in equal if model.ready]
        if again and not ready:
            self.invalidate([trial_key])
            return self.find(trial_key, sha256, run_id)
        for model in equal:
            if not model.ready and model.source_run_id == run_id:
                self.client.delete_logged_model(model.model_id)
                del self._by_key[trial_key][model.model_id]
        return min(ready, key=lambda model: (model.source_run_id != run_id, model.created_ms), default=None)

    def upload(self, trial_key: str, run_id: str, record: SparseModelRecord) -> LoggedModelInfo:
        """The new logged model of a run, ready to be loaded."""
        model = _known(upload_model(self.client, self.experiment_id, run_id, record))
        self._of(trial_key)[model.model_id] = model
        return model

    def _of(self, trial_key: str) -> dict[str, LoggedModelInfo]:
        if trial_key in self._to_look_up or trial_key not in self._by_key:
            self._look_up({*self._to_look_up, trial_key})
        return self._by_key[trial_key]

    def _look_up(self, trial_keys: set[str]) -> None:
        models: dict[str, dict[str, LoggedModelInfo]] = {key: {} for key in trial_keys}
        keys_left = sorted(trial_keys)
        for start in range(0, len(keys_left), KEYS_PER_SEARCH):
            keys = ", ".join(f"'{key}'" for key in keys_left[start : start + KEYS_PER_SEARCH])
            for model in pages(self.client.search_logged_models, self.experiment_id, f"tags.`drive.trial_key` IN ({keys})"):
                models[model.tags["drive.trial_key"]][model.model_id] = _known(model)
        self._by_key |= models
        self._to_look_up.clear()


def _known(model: Any) -> LoggedModelInfo:
    counts = SUPERSEDED not in model.tags  # else it is damaged: the model of no trial
    return LoggedModelInfo(
        model_id=model.model_id,
        sha256=model.tags.get("drive.model_sha256", "") if counts else "",
        sweep=model.tags.get("drive.sweep", ""),
        source_run_id=model.source_run_id,
        created_ms=model.creation_timestamp,
        ready=counts and str(model.status) == "READY" and _has_files(model.artifact_location),
        location=model.artifact_location,
    )


def _has_files(location: str) -> bool:
    """Whether a folder still has the model that was uploaded to it; other stores are trusted."""
    folder = local_folder(location)
    return folder is None or (folder / "MLmodel").is_file()


def upload_model(client: Any, experiment_id: str, run_id: str, record: SparseModelRecord) -> Any:
    """The new logged model of a run, ready to be loaded."""
    model = client.create_logged_model(
        experiment_id=experiment_id,
        name=record.name,
        source_run_id=run_id,
        tags=record.tags,
        params=record.params,
        model_type=MODEL_TYPE,
    )
    with tempfile.TemporaryDirectory(prefix="drive-sweep-model-") as scratch:
        write_served_model(Path(scratch), record, model, run_id)
        client.log_model_artifacts(model.model_id, scratch)
    client.log_model_artifact(model.model_id, str(record.file), ARTIFACTS)
    return client.finalize_logged_model(model.model_id, "READY")
