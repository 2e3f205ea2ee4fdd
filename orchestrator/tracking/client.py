"""A quiet MLflow client for a tracking target, with its errors explained.

Importing mlflow takes seconds, so it happens inside the functions. Everything goes through MlflowClient with explicit ids:
no global tracking URI, no active run, and MLFLOW_RUN_ID is ignored.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from orchestrator.command_line import command
from orchestrator.errors import SetupError
from orchestrator.process.credentials import CREDENTIALS as CREDENTIALS
from orchestrator.tracking.database import Notify, make_ready
from orchestrator.tracking.database_locations import follow_storage
from orchestrator.tracking.error_hints import tracking_error
from orchestrator.uris import redacted

# Defaults for variables that the user has not set. We retry ourselves: MLflow would silently block for two minutes.
MLFLOW_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # it would be drawn across the screen
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_UV_AUTO_DETECT": "false",
}
SQLITE = "sqlite:///"


@dataclass(frozen=True, kw_only=True)
class TrackingTarget:
    """Where runs go.

    Attributes:
        artifact_root: folder of the models and figures of a new experiment; None leaves that to the server.
        storage: the folder of the storage whose database this is; None for one that is not a storage's.
    """

    uri: str
    experiment: str
    artifact_root: str | None
    storage: str | None = None


def is_server(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


def database_file(uri: str) -> Path | None:
    """The file of a SQLite store; None for other stores."""
    return Path(unquote(uri.removeprefix(SQLITE).partition("?")[0])) if uri.startswith(SQLITE) else None


def import_mlflow(uri: str = SQLITE) -> None:
    """Imports what a sync to this tracking URI needs: seconds of work, once per process."""
    for name, value in MLFLOW_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow.pyfunc

    if not is_server(uri):
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # tracebacks of errors that it raises as well
    warnings.filterwarnings("ignore", category=UserWarning, module=r"mlflow\.")


def print_on_stderr(notify: str) -> None:
    print(f"drive-sweep: {notify}", file=sys.stderr, flush=True)


def connect(target: TrackingTarget, notify: Notify = print_on_stderr, *, restore: bool = True) -> tuple[Any, str]:
    """A client and the id of the experiment, which is created if there is none.

    Args:
        notify: gets a message on what was done to the store before it could be used.
        restore: bring a deleted experiment back, since no other can have its name.

    Raises:
        SetupError: the store does not answer or cannot be used, or the experiment is deleted.
    """
    import_mlflow(target.uri)
    from mlflow import MlflowClient

    with as_setup_error(target.uri):
        prepare_database(target, notify)
        client = MlflowClient(tracking_uri=target.uri)
        if database_file(target.uri):  # MLflow keeps connections, maybe to a file that is gone
            client._tracking_client.store.engine.dispose()
        experiment = client.get_experiment_by_name(target.experiment)
        if experiment is None:
            return client, _new_experiment(client, target)
        if experiment.lifecycle_stage == "deleted":
            if not restore:
                raise SetupError(
                    f"tracking.experiment must not be deleted, got {target.experiment!r} at {redacted(target.uri)}, which is",
                    "the next `run`, `resume` or `sync` of a sweep restores it with its runs, or give another name with "
                    "--set tracking.experiment=NAME",
                    code="experiment-deleted",
                )
            client.restore_experiment(experiment.experiment_id)
            notify(f"experiment {target.experiment!r} was deleted in MLflow; it is restored with its runs")
        return client, str(experiment.experiment_id)


def prepare_database(target: TrackingTarget, notify: Notify) -> None:
    """Makes a SQLite store ready for use; does nothing for other stores. mlflow must be imported."""
    file = database_file(target.uri)
    if file is None:
        return
    make_ready(
        file, target.artifact_root or str(file.absolute().parent / "artifacts"), notify, replaceable=bool(target.storage)
    )
    if target.storage:
        follow_storage(Path(target.storage), notify)


def _new_experiment(client: Any, target: TrackingTarget) -> str:
    """The id of the experiment, created by this process or, at the same moment, by another one."""
    from mlflow.exceptions import MlflowException

    try:
        return str(client.create_experiment(target.experiment, artifact_location=target.artifact_root))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return str(client.get_experiment_by_name(target.experiment).experiment_id)


@contextmanager
def as_setup_error(uri: str) -> Iterator[None]:
    """Turns errors of MLflow into a SetupError with the fix."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, ImportError, OSError) as error:
        problem = tracking_error(uri, error)
        later = f"{problem.hint}. The trial folders hold everything; `{command('sync')}` brings MLflow up to date later"
        raise SetupError(problem.message, later, code=problem.code) from error
