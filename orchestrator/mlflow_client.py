"""A quiet MLflow client on a tracking target, and what its troubles mean.

Importing mlflow takes seconds, so it happens inside the functions. Everything goes through MlflowClient with explicit ids:
no global tracking URI, no active run, and MLFLOW_RUN_ID has no say. Read by: mirror.py, tracking.py, ui.py.
"""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import SetupError
from orchestrator.uris import masked

# What the user has set stays. Retries are ours: those of MLflow would block for two minutes without a word.
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_UV_AUTO_DETECT": "false",
}
CREDENTIALS = (
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
)
NO_LOGIN = re.compile(r"error code 40[13]|not authenticated|permission denied", re.IGNORECASE)
SQLITE = "sqlite:///"


@dataclass(frozen=True, kw_only=True)
class TrackingTarget:
    """Where runs go.

    Attributes:
        artifact_root: folder of the models and figures of a new experiment; None leaves that to the server.
    """

    uri: str
    experiment: str
    artifact_root: str | None


def is_server(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


def database_file(uri: str) -> Path | None:
    """The file of a SQLite store; None for other stores."""
    return Path(uri.removeprefix(SQLITE).partition("?")[0]) if uri.startswith(SQLITE) else None


def import_mlflow(uri: str = SQLITE) -> None:
    """Imports what a projection to this tracking URI needs: seconds of work, once per process."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    import mlflow.pyfunc

    if not is_server(uri):
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"mlflow\.")


def connect(target: TrackingTarget) -> tuple[Any, str]:
    """A client and the id of the experiment, which is made if there is none.

    Raises:
        SetupError: the store does not answer or cannot be used, or the experiment is deleted.
    """
    _prepare_database(target.uri)
    import_mlflow(target.uri)
    from mlflow import MlflowClient

    with tracking_problems(target.uri):
        client = MlflowClient(tracking_uri=target.uri)
        experiment = client.get_experiment_by_name(target.experiment)
        if experiment is None:
            return client, str(client.create_experiment(target.experiment, artifact_location=target.artifact_root))
        if experiment.lifecycle_stage == "deleted":
            raise SetupError(
                f"tracking.experiment: {target.experiment!r} was deleted at {masked(target.uri)}; bring it back with "
                f"`mlflow experiments restore --experiment-id {experiment.experiment_id}`, or give another name with "
                "--set tracking.experiment=NAME"
            )
        return client, str(experiment.experiment_id)


@contextmanager
def tracking_problems(uri: str) -> Iterator[None]:
    """Turns what MLflow raises inside into a SetupError with a way out."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, ImportError, OSError) as error:
        shown = masked(uri)  # that of the environment or of an older sweep may hold a login
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].replace(uri, shown)
        way_out = "start it, or" if is_server(uri) else "repair it, or"
        if NO_LOGIN.search(reason):
            way_out = f"export the login that it asks for as {CREDENTIALS[0]} and {CREDENTIALS[1]}, or"
        raise SetupError(
            f"tracking {shown} cannot be used: {reason[:300]}; {way_out} give another with --tracking-uri. The trials' "
            "folders hold everything; `drive-sweep sync NAME` brings MLflow up to date later"
        ) from error


def _prepare_database(uri: str) -> None:
    """Makes a new database with a write-ahead log: writing takes half as long, and readers do not wait for it."""
    file = database_file(uri)
    if file is None:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(
            f"tracking {uri}: folder {file.parent} cannot be made: {error.strerror}; give another place with --tracking-uri"
        ) from error
    if not file.exists():
        with suppress(sqlite3.Error), closing(sqlite3.connect(file)) as database:  # MLflow will tell what is wrong with it
            database.execute("PRAGMA journal_mode=WAL")
