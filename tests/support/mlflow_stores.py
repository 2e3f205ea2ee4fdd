"""Real MLflow stores for tests, and everything that they hold as plain values."""

from __future__ import annotations

import atexit
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from orchestrator.tracking.client import TrackingTarget, connect
from orchestrator.tracking.run_sync import RunSync

TIMED = ("start", "end", "inputs")
TAGS_OF_TIME = ("drive.projection", "mlflow.user", "mlflow.source.name", "drive.artifact", "mlflow.note.content")
COSTS = re.compile(r"cost/|best/.*/epochs")
ID_TAGS = ("mlflow.parentRunId", "drive.model_id")


@cache
def empty_database() -> tuple[Path, str]:
    """A migrated SQLite store, and what its first use printed; making one takes seconds, copying it none."""
    folder = Path(tempfile.mkdtemp(prefix="drive-sweep-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    file = folder / "new" / "folder" / "mlflow.db"
    script = f"""
from orchestrator.tracking.client import TrackingTarget, connect
connect(TrackingTarget(uri="sqlite:///{file}", experiment="unused", artifact_root="{folder}/artifacts"))
"""
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
    return file, done.stdout + done.stderr


def new_target(root: Path, experiment: str = "pruning") -> TrackingTarget:
    """A store of its own below `root`."""
    root.mkdir(parents=True, exist_ok=True)
    shutil.copy(empty_database()[0], root / "mlflow.db")
    return TrackingTarget(uri=f"sqlite:///{root}/mlflow.db", experiment=experiment, artifact_root=str(root / "artifacts"))


class Content:
    """All runs and models of an experiment."""

    def __init__(self, target: TrackingTarget) -> None:
        self.uri = target.uri
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
        files = self.files(model.artifact_location)
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

    def files(self, location: str) -> dict[str, bytes]:
        """Relative path -> content of all artifacts in a folder, or in one that only the server reaches."""
        from mlflow.artifacts import download_artifacts

        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(location.removeprefix("file://"))
            if not folder.is_absolute():
                folder = Path(download_artifacts(artifact_uri=location, dst_path=scratch, tracking_uri=self.uri))
            return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}

    def named(self, name: str) -> dict[str, Any]:
        """The one run of this name."""
        (run,) = [run for run in self.runs if run.info.run_name == name]
        return self.run(run)


class Recorder:
    """A client that notes the calls, and may stand for a process that ends right after one of them."""

    def __init__(self, client: Any, die_after: int = 0) -> None:
        self.client = client
        self.die_after = die_after
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.client, name)

        def recorded(*arguments: Any, **named: Any) -> Any:
            self.calls.append(name)
            answer = call(*arguments, **named)
            if len(self.calls) == self.die_after:
                raise ProcessEndedError(name)
            return answer

        return recorded


class ProcessEndedError(BaseException):
    """Nothing in the code under test may catch it."""


def recorded(sync: RunSync, die_after: int = 0) -> Recorder:
    """Puts a Recorder between the mirror and MLflow."""
    recorder = Recorder(sync.client, die_after)
    sync.client = sync.runs.client = sync.models.client = recorder
    return recorder


def timeless(plain: dict[str, Any]) -> dict[str, Any]:
    """Without what differs between any two sweeps: times, costs and what is derived from them."""
    runs = []
    for run in plain["runs"]:
        kept = {name: value for name, value in run.items() if name not in TIMED}
        kept["points"] = [(key, step, value) for key, step, value, _ in run["points"] if not COSTS.match(key)]
        kept["tags"] = {name: value for name, value in run["tags"].items() if not name.startswith(TAGS_OF_TIME)}
        runs.append(kept)
    models = []
    for model in plain["models"]:
        kept = dict(model)
        kept["metrics"] = [(key, step, value) for key, step, value, *_ in model["metrics"]]
        models.append(kept)
    return {"runs": runs, "models": models}


def compare(first: dict[str, Any], second: dict[str, Any]) -> None:
    for kind in ("runs", "models"):
        assert len(first[kind]) == len(second[kind]), f"{len(first[kind])} {kind} against {len(second[kind])}"
        for one, other in zip(first[kind], second[kind], strict=True):
            different = [name for name in one if one[name] != other[name]]
            assert not different, f"{one['name']}: {different[0]}: {one[different[0]]} != {other[different[0]]}"
