"""Real MLflow stores for tests, and everything that they hold as plain values."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from orchestrator.mlflow_client import connect
from orchestrator.tracking import Mirror, TrackingTarget

ID_TAGS = ("mlflow.parentRunId", "drive.model_id")


@cache
def empty_database() -> Path:
    """A migrated SQLite store; making one takes seconds, copying it none."""
    folder = tempfile.mkdtemp(prefix="drive-sweep-tests-")
    target = TrackingTarget(uri=f"sqlite:///{folder}/mlflow.db", experiment="unused", artifact_root=f"{folder}/artifacts")
    connect(target)
    return Path(folder, "mlflow.db")


def new_target(root: Path, experiment: str = "pruning") -> TrackingTarget:
    """A store of its own below `root`."""
    root.mkdir(parents=True, exist_ok=True)
    shutil.copy(empty_database(), root / "mlflow.db")
    return TrackingTarget(uri=f"sqlite:///{root}/mlflow.db", experiment=experiment, artifact_root=str(root / "artifacts"))


class Content:
    """All runs and models of an experiment."""

    def __init__(self, target: TrackingTarget) -> None:
        self.client, experiment_id = connect(target)
        self.runs = list(self.client.search_runs([experiment_id], max_results=1000))
        self.models = list(self.client.search_logged_models([experiment_id]))
        self.names = {run.info.run_id: run.info.run_name for run in self.runs}
        self.names |= {model.model_id: model.name for model in self.models}

    def plain(self, ids: bool) -> dict[str, Any]:
        """Everything, by name. Without `ids` these are replaced by names, so that two stores compare."""
        runs = sorted((self.run(run, ids) for run in self.runs), key=lambda run: (run["name"], run["tags"]["drive.sweep"]))
        models = sorted((self.model(model, ids) for model in self.models), key=lambda model: str(model["name"]))
        return {"runs": runs, "models": models}

    def run(self, run: Any, ids: bool = False) -> dict[str, Any]:
        tags = dict(run.data.tags)
        if not ids:
            tags |= {tag: self.names[tags[tag]] for tag in ID_TAGS if tag in tags}
        return {
            "id": run.info.run_id if ids else None,
            "name": run.info.run_name,
            "status": run.info.status,
            "start": run.info.start_time,
            "end": run.info.end_time,
            "params": dict(run.data.params),
            "tags": tags,
            "points": self.points(run),
            "inputs": [
                (entry.dataset.to_dictionary(), [(tag.key, tag.value) for tag in entry.tags])
                for entry in run.inputs.dataset_inputs
            ],
            "outputs": [
                (output.model_id if ids else self.names[output.model_id], output.step) for output in run.outputs.model_outputs
            ],
        }

    def points(self, run: Any) -> list[tuple[str, int, float, int]]:
        history = (point for key in run.data.metrics for point in self.client.get_metric_history(run.info.run_id, key))
        return sorted((point.key, point.step, point.value, point.timestamp) for point in history)

    def model(self, model: Any, ids: bool) -> dict[str, Any]:
        folder = Path(model.artifact_location.removeprefix("file://"))
        files = {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}
        metrics = model.metrics or []
        return {
            "id": model.model_id if ids else None,
            "name": model.name,
            "status": str(model.status),
            "type": model.model_type,
            "params": model.params,
            "tags": model.tags,
            "run": model.source_run_id if ids else self.names[model.source_run_id],
            "metrics": sorted(
                (metric.key, metric.step, metric.value, metric.timestamp, metric.dataset_name, metric.dataset_digest)
                for metric in metrics
            ),
            # MLmodel holds ids and the time of the upload.
            "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items() if ids or name != "MLmodel"},
        }

    def named(self, name: str) -> dict[str, Any]:
        """The one run of this name."""
        (run,) = [run for run in self.runs if run.info.run_name == name]
        return self.run(run)


class Recorder:
    """A client that notes the calls, and may stand for a process that ends at one of them."""

    def __init__(self, client: Any, die_at: int = 0, before: bool = False) -> None:
        self.client = client
        self.die_at = die_at
        self.before = before
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.client, name)

        def recorded(*arguments: Any, **named: Any) -> Any:
            self.calls.append(name)
            if self.before and len(self.calls) == self.die_at:
                raise ProcessEndedError(name)
            answer = call(*arguments, **named)
            if len(self.calls) == self.die_at:
                raise ProcessEndedError(name)
            return answer

        return recorded


class ProcessEndedError(BaseException):
    """Nothing in the code under test may catch it."""


def recorded(mirror: Mirror, die_at: int = 0, before: bool = False) -> Recorder:
    """Puts a Recorder between the mirror and MLflow."""
    recorder = Recorder(mirror.client, die_at, before)
    mirror.client = mirror.runs.client = recorder
    return recorder


class Server:
    """A real tracking server on loopback, with proxied artifacts, that can be stopped and started again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{self.root}/mlflow.db", "--artifacts-destination", f"{self.root}/remote"]
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with open(self.root / "server.log", "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                urlopen(f"{self.uri}/health", timeout=2).close()
                return
            except OSError:
                assert self.process.poll() is None, (self.root / "server.log").read_text()
                time.sleep(0.05)
        raise AssertionError("the server did not come up")

    def stop(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
