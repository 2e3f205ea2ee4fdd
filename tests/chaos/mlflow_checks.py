"""What MLflow must hold after a round: one run a trial with exactly its points, and aliases that lead to the right models."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.export.sparse_model import stored_sha256

if TYPE_CHECKING:
    from tests.chaos.round import Round

ALIASES = {"best-s80"}


def check_runs(round_: Round) -> Iterator[str]:
    """One run for each trial, none RUNNING, each with exactly the points of its record, each point once.

    A trial that was computed again, since its record was damaged, has its former run too, which says so.
    """
    client, experiment = _client(round_)
    everything = client.search_runs([experiment], max_results=1000)
    runs = [run for run in everything if "drive.superseded" not in run.data.tags]
    if len(runs) < len(everything) and not round_.damaged:
        yield "a run is superseded, though no file was damaged"
    counts = Counter((run.data.tags["drive.role"], run.data.tags.get("drive.trial_key", "")) for run in runs)
    doubled = {name: count for name, count in counts.items() if count > 1 and name[0] in ("trial", "sweep")}
    if doubled:
        yield f"more than one run: {doubled}"
    states = {trial["key"]: trial for trial in round_.final_status["trials"]}
    by_key = {run.data.tags["drive.trial_key"]: run for run in runs if run.data.tags["drive.role"] == "trial"}
    if by_key.keys() != states.keys():
        yield f"runs without trials: {by_key.keys() - states.keys()}, trials without runs: {states.keys() - by_key.keys()}"
    for run in everything:
        if run.info.status == "RUNNING":
            yield f"run {run.info.run_name} is RUNNING"
    for key, run in by_key.items():
        if key not in states:
            continue
        status = "KILLED" if states[key]["state"] == "stopped" else "FINISHED"
        if run.info.status != status:
            yield f"run {run.info.run_name} is {run.info.status}, its trial {states[key]['state']}"
        yield from _check_points(round_, client, key, run)


def _check_points(round_: Round, client: Any, key: str, run: Any) -> Iterator[str]:
    lines = round_.records.read(f"trials/{key}/metrics.jsonl").decode().splitlines()
    recorded = [(point["key"], point["step"], point["value"]) for point in map(json.loads, lines)]
    histories = (client.get_metric_history(run.info.run_id, metric) for metric in run.data.metrics)
    logged = [(point.key, point.step, point.value) for history in histories for point in history]
    if len(logged) != len(set(logged)) or len({(name, step) for name, step, _ in logged}) != len(logged):
        yield f"run {run.info.run_name} has a point twice"
    if sorted(logged) != sorted(recorded):
        different = sorted(set(logged) ^ set(recorded))
        yield f"run {run.info.run_name}: {len(logged)} points, its record {len(recorded)}; {different[:4]}"


def check_registry(round_: Round) -> Iterator[str]:
    """Each group's alias is at a version with the model of its trial; a finished trial has one model."""
    client, experiment = _client(round_)
    digests = {trial["key"]: trial["model_sha256"] for trial in round_.final_status["trials"] if trial["state"] == "finished"}
    models = Counter(model.tags["drive.trial_key"] for model in client.search_logged_models([experiment], max_results=1000))
    if models != Counter(digests.keys()):
        yield f"{sum(models.values())} models of {len(models)} trials, {len(digests)} are finished"
    registered = [model for model in client.search_registered_models() if model.tags.get("drive.sweep") == round_.name]
    if len(registered) != 1:
        yield f"{len(registered)} registered models"
        return
    aliases = dict(registered[0].aliases)
    if aliases.keys() != ALIASES:
        yield f"aliases {sorted(aliases)}"
    versions = client.search_model_versions(f"name='{registered[0].name}'")
    doubled = [count for count in Counter(one.tags["drive.model_id"] for one in versions).values() if count > 1]
    if doubled:
        yield "a model has two versions"
    for alias in aliases:
        version = client.get_model_version_by_alias(registered[0].name, alias)
        model = client.get_logged_model(version.tags["drive.model_id"])
        key = version.tags["drive.trial_key"]
        if model.tags["drive.model_sha256"] != digests.get(key) or str(model.status).rpartition(".")[2] != "READY":
            yield f"alias {alias} is at trial {key} with another model, {model.status}"
        if _digest_of(model.artifact_location, client.tracking_uri) != digests.get(key):
            yield f"the files of alias {alias} hold another model than trial {key}"


def _digest_of(location: str, tracking_uri: str) -> str:
    """The model_sha256 of the sparse model among the files of a logged model."""
    from mlflow.artifacts import download_artifacts

    with tempfile.TemporaryDirectory() as scratch:
        download_artifacts(artifact_uri=location, dst_path=scratch, tracking_uri=tracking_uri)
        (file,) = Path(scratch).rglob("*.safetensors.zst")
        return stored_sha256(file)


def _client(round_: Round) -> tuple[Any, str]:
    from mlflow import MlflowClient

    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    server = round_.plan.setting.tracking == "server"
    client = MlflowClient(round_.ground.tracking.uri if server else f"sqlite:///{round_.storage}/mlflow.db")
    experiment = client.get_experiment_by_name(round_.name)
    assert experiment is not None, f"no experiment {round_.name}"
    return client, experiment.experiment_id
