"""The variables that hold a login for MLflow: only the process that talks to it has them."""

from __future__ import annotations

import os

CREDENTIALS = (
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
)


def environment_without_login() -> dict[str, str]:
    """This process's environment for a child that runs users' code or needs no server."""
    return {name: value for name, value in os.environ.items() if name not in CREDENTIALS}
