"""The digits sweep against a tracking server as a team has it: PostgreSQL, a login, artifacts on an S3 API behind the server.

    python -m tests.acceptance.tracking_server

Shown: MLflow holds the same runs, params, tags, points and models as after the same sweep into a local database (costs and
times apart); every model, loaded from the server, gives its run's test accuracy; the login and the S3 key stand in no
process of Ray, no log and no file of the storage.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import mlflow
import torch

from orchestrator.tracking.client import TrackingTarget
from tests.acceptance.models import check_models
from tests.integration.test_tracking_server import readable_secrets, secrets_in, session_folders
from tests.support.cli import command_line, descendants, drive_sweep, start, wait_for
from tests.support.mlflow_stores import Content, compare, timeless
from tests.support.tracking_server import tracking_server, why_not


def main() -> None:
    assert not why_not(), why_not()
    torch.set_num_threads(1)  # as the sweep's trials
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        root.chmod(0o755)
        with tracking_server(root) as server:
            command = ["run", "digits", "--storage", root / "remote", "--tracking-uri", server.uri]
            process = start(*command, environment=server.login)
            wait_for(lambda: [pid for pid in descendants(process.pid) if "ray::" in command_line(pid)])
            shown, folders = readable_secrets(process.pid), session_folders(process.pid)
            output, _ = process.communicate(timeout=1800)
            assert process.returncode == 0, output
            leaks = secrets_in([root / "remote", *folders])
            assert not shown, shown
            assert not leaks, leaks
            print(f"exit 0; no secret in the processes, in {len(folders)} folders of logs and in the storage", flush=True)

            drive_sweep("run", "digits", "--storage", root / "local", "--quiet", timeout_s=1800)
            os.environ.update(server.login)
            there = Content(TrackingTarget(uri=server.uri, experiment="drive-sweep", artifact_root=None))
            local = TrackingTarget(uri=f"sqlite:///{root}/local/mlflow.db", experiment="drive-sweep", artifact_root=None)
            compare(timeless(Content(local).plain(ids=False)), timeless(there.plain(ids=False)))
            print(f"{len(there.runs)} runs and {len(there.models)} models, as in a local database", flush=True)
            mlflow.set_tracking_uri(server.uri)
            check_models(there.client)


if __name__ == "__main__":
    main()
