"""Moves the runs of a sweep to its new name, after `rename`; the runs themselves stay, so nothing is doubled."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from orchestrator.command_line import command
from orchestrator.errors import SetupError
from orchestrator.state.storage_identity import known_identity
from orchestrator.state.sweep_folder import RENAMED, SweepFolder
from orchestrator.storage.base import Storage
from orchestrator.tracking.client import TrackingTarget, as_setup_error, connect
from orchestrator.tracking.renamed_models import move_registered_models
from orchestrator.tracking.runs import is_of_storage, pages
from orchestrator.tracking.shared_views import TAG as VIEW_TAG
from orchestrator.tracking.shared_views import sweeps_view_key, trials_view_key

NAME_TAG, REUSED_TAG = "drive.sweep", "drive.reused_from"


def follow_renaming(client: Any, experiment_id: str, folder: SweepFolder, uri: str) -> None:
    """Gives the runs the sweep's name, if it was renamed since it was tracked; does nothing in a store that lacks them.

    The sweep's own run comes last, so that one that was cut off is completed the next time.

    Raises:
        SetupError: the store cannot be used, or has runs of another sweep with this name.
    """
    if not folder.storage.exists(folder.file(RENAMED)):
        return
    record = folder.storage.read_json(folder.file(RENAMED), fields=("from", "parent_run_id"))
    if record is None:
        return
    known, former = record["parent_run_id"], SweepFolder(folder.storage, record["from"])
    with as_setup_error(uri):
        if known:
            parent = _run(client, known)
            if parent is None:
                return
        else:
            parent = None if former.exists() else _oldest_of(client, experiment_id, former.name, known_identity(folder))
        if parent is not None and parent.data.tags.get(NAME_TAG) != folder.name:
            _move(client, parent, folder.name)
    folder.storage.remove(folder.file(RENAMED))


def follow_renamings_from(client: Any, experiment_id: str, storage: Storage, name: str, uri: str) -> None:
    """Moves the runs of sweeps that had this name until they were renamed, so that a new sweep does not take them for its own.

    Raises:
        SetupError: see `follow_renaming`.
    """
    others = [SweepFolder(storage, other) for other in storage.names("sweeps") if other != name]
    for folder, content in zip(others, storage.read_all([one.file(RENAMED) for one in others]), strict=True):
        if content is not None and folder.exists():
            record = storage.read_json(folder.file(RENAMED), fields=("from",))
            if record and record["from"] == name:
                follow_renaming(client, experiment_id, folder, uri)


def require_free_in_mlflow(target: TrackingTarget, parent_run_id: str, sweep: str) -> None:
    """Raises SetupError if MLflow cannot be reached, or has runs of another sweep with this name."""
    client, _ = connect(target, restore=False)
    with as_setup_error(target.uri):
        parent = _run(client, parent_run_id)
        if parent is not None:
            _require_free(client, parent, _children(client, parent), sweep)


def _move(client: Any, parent: Any, sweep: str) -> None:
    former = str(parent.data.tags.get(NAME_TAG))
    experiment, children = parent.info.experiment_id, _children(client, parent)
    _require_free(client, parent, children, sweep)
    for run in children:
        tags = run.data.tags
        if tags.get(NAME_TAG) != sweep:
            if tags.get("drive.model_id") and REUSED_TAG not in tags:
                _tag_model(client, tags["drive.model_id"], sweep)
            client.set_tag(run.info.run_id, NAME_TAG, sweep)
    for run in list(pages(client.search_runs, experiment, f"tags.`{REUSED_TAG}` = '{former}'")):
        client.set_tag(run.info.run_id, REUSED_TAG, sweep)
    details = client.get_experiment(experiment)
    move_registered_models(client, former, sweep, details.name)
    for key in _views_of(former, details.tags):
        client.delete_experiment_tag(experiment, f"{VIEW_TAG}{key}")  # the next sync saves them under the new name
    client.update_run(parent.info.run_id, name=sweep)
    client.set_tag(parent.info.run_id, NAME_TAG, sweep)


def _views_of(sweep: str, tags: Mapping[str, str]) -> list[str]:
    """Keys of the shared views of a sweep among the tags of its experiment."""
    own = re.compile(rf"{re.escape(sweeps_view_key(sweep))}|{re.escape(trials_view_key(sweep))}(-s[0-9.e-]+)?")
    return [key for tag in tags if own.fullmatch(key := tag.removeprefix(VIEW_TAG)) and tag.startswith(VIEW_TAG)]


def _children(client: Any, parent: Any) -> list[Any]:
    query = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    return list(pages(client.search_runs, parent.info.experiment_id, query))


def _require_free(client: Any, parent: Any, children: list[Any], sweep: str) -> None:
    family = {run.info.run_id for run in (parent, *children)}
    others = pages(client.search_runs, parent.info.experiment_id, f"tags.`{NAME_TAG}` = '{sweep}'")
    if any(run.info.run_id not in family for run in others):
        raise SetupError(
            f"MLflow has runs of another sweep {sweep!r}",
            f"choose another name: `{command('rename', str(parent.data.tags.get(NAME_TAG)), 'NEW')}`",
            code="sweep-name-taken",
        )


def _oldest_of(client: Any, experiment_id: str, sweep: str, identity: str) -> Any:
    """The own run of a sweep whose state does not name it; None if there is none, but for those of other storages."""
    query = f"tags.`{NAME_TAG}` = '{sweep}' AND tags.`drive.role` = 'sweep'"
    runs = [run for run in pages(client.search_runs, experiment_id, query) if is_of_storage(run.data.tags, identity)]
    return min(runs, key=lambda run: int(run.info.start_time), default=None)


def _run(client: Any, run_id: str) -> Any:
    """A run; None if this store has none of that id, or has it in its trash."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return run if run.info.lifecycle_stage == "active" else None


def _tag_model(client: Any, model_id: str, sweep: str) -> None:
    """Names the sweep that uploaded a model, unless the model was deleted."""
    from mlflow.exceptions import MlflowException

    try:
        client.set_logged_model_tags(model_id, {NAME_TAG: sweep})
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
