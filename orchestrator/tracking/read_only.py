"""A look at what MLflow holds, which changes nothing there: what a sync would write is the difference from the records."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.tracking.client import TrackingTarget, as_setup_error, database_file, import_mlflow
from orchestrator.tracking.database_file import NAME, condition, open_read_only
from orchestrator.tracking.database_locations import moved_roots


class WriteRefusedError(Exception):
    """The code under a ReadOnlyClient wanted to change the store; the message is the call."""


class ReadOnlyClient:
    """A client whose calls that change the store raise WriteRefusedError."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def writable(self) -> Any:
        """The client itself."""
        return self._client

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("get_", "search_")):
            return getattr(self._client, name)

        def refuse(*arguments: object, **named: object) -> None:
            raise WriteRefusedError(name)

        return refuse


@dataclass(frozen=True, kw_only=True)
class View:
    """What can be read of an experiment.

    Attributes:
        client: reads from the store.
        experiment_id: empty if there is no such experiment, with the reason in `problem`.
        problem: why nothing can be compared: the database or the experiment is missing, damaged or deleted.
    """

    client: Any = None
    experiment_id: str = ""
    problem: str = ""


def is_usable(target: TrackingTarget) -> bool:
    """Whether a check can use the store without changing what is there: a storage's database may have to be replaced first."""
    return target.storage is None or condition(Path(target.storage, NAME)) in ("whole", "missing")


def view(target: TrackingTarget) -> View:
    """The experiment of a target as it is now.

    Raises:
        SetupError: the store does not answer or cannot be used.
    """
    file = database_file(target.uri)
    state = "whole" if file is None else condition(file)
    if state == "missing":
        return View(problem="MLflow's database is not there")
    if state != "whole":
        words = {"older": "has the schema of an older MLflow", "newer": "has the schema of a newer MLflow"}
        return View(problem=f"MLflow's database {words.get(state, f'is {state}')}")
    if target.storage is not None and file is not None:
        with closing(open_read_only(file)) as database:
            if moved := moved_roots(database, Path(target.storage)):
                return View(problem=f"MLflow's database has its artifacts at {moved[0]}, where the storage was")
    import_mlflow(target.uri)
    from mlflow import MlflowClient

    with as_setup_error(target.uri):
        client = MlflowClient(tracking_uri=target.uri)
        if file is not None:  # MLflow keeps connections, maybe to a file that is gone
            client._tracking_client.store.engine.dispose()
        experiment = client.get_experiment_by_name(target.experiment)
    if experiment is None:
        return View(problem=f"MLflow has no experiment {target.experiment!r}")
    if experiment.lifecycle_stage == "deleted":
        return View(problem=f"experiment {target.experiment!r} is deleted in MLflow")
    return View(client=ReadOnlyClient(client), experiment_id=str(experiment.experiment_id))
