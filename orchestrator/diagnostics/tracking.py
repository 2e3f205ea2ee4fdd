"""Checks that MLflow can store a sweep: it answers, accepts our login, is new enough, takes artifacts."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from orchestrator.errors import SetupError
from orchestrator.tracking.client import TrackingTarget, as_setup_error, connect, is_server

MIN_VERSION = (3, 0)  # which has logged models
ARTIFACT = "doctor.txt"


def check_server(target: TrackingTarget) -> str:
    """Which server answers at the tracking URI, in words.

    Raises:
        SetupError: it does not answer, refuses the login, or is too old.
    """
    client, experiment_id = connect(target, restore=False)
    if not is_server(target.uri):
        return f"{target.uri} can be read and written"
    from mlflow.utils.rest_utils import http_request

    with as_setup_error(target.uri):
        creds = client._tracking_client.store.get_host_creds()
        answer = http_request(host_creds=creds, endpoint="/version", method="GET")
    version = answer.text.strip() if answer.ok else "unknown"
    numbers = tuple(int(number) for number in version.split(".")[:2] if number.isdigit())
    if answer.ok and numbers < MIN_VERSION:
        required = ".".join(map(str, MIN_VERSION))
        raise SetupError(
            f"tracking {target.uri} runs MLflow {version}, a sweep needs {required} or newer",
            "update the server",
            code="tracking-unsupported",
        )
    return f"{target.uri} answers, MLflow {version}, experiment {target.experiment!r} is number {experiment_id}"


def check_artifacts(target: TrackingTarget) -> str:
    """Where artifacts go, in words; writes a small one, reads it back and removes it with its run.

    Raises:
        SetupError: one of these failed.
    """
    client, experiment_id = connect(target, restore=False)
    with as_setup_error(target.uri), tempfile.TemporaryDirectory() as folder:
        from mlflow.artifacts import download_artifacts
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        run = client.create_run(experiment_id, run_name="doctor", tags={"drive.role": "doctor"})
        try:
            sent = f"written {time.time_ns()}"
            client.log_text(run.info.run_id, sent, ARTIFACT)
            uri = f"{run.info.artifact_uri}/{ARTIFACT}"
            read = Path(download_artifacts(artifact_uri=uri, dst_path=folder, tracking_uri=target.uri)).read_text()
            if read != sent:
                raise SetupError(
                    f"tracking {target.uri}: an artifact came back with different content",
                    f"check {uri}",
                    code="artifact-damaged",
                )
            get_artifact_repository(run.info.artifact_uri, tracking_uri=target.uri).delete_artifacts(ARTIFACT)
        finally:
            client.set_terminated(run.info.run_id, "FINISHED")
            client.delete_run(run.info.run_id)
    return f"artifacts can be written, read and removed at {run.info.artifact_uri.partition(run.info.run_id)[0]}"
