"""A small search on digits with one slot, and what must be equal however often its driver was killed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from tests.support.cli import digests, status

SEARCH = """\
name: searched
dataset: {{name: digits}}
model: convnet
search:
  warmup_epochs: [0, 1, 2, 4]
  prune_iterations: {{min: 1, max: 50, log: true}}
  sparsity: [0.9, 0.98]
strategy: {{name: tpe, configurations: {configurations}}}
early_stopping: {{name: asha, grace_epochs: 1}}
seeds: {{first: 1, most: {seeds}}}
training: {{epochs: {epochs}, batch_size: 64, lr: 0.1}}
precision: fp32
resources: {{device: cpu, cpus_per_trial: 1, max_concurrent: 1}}
checkpoint_seconds: 0
"""
OF_TIMES = ("elapsed_s", "seconds", "crc32")  # the last is of the whole line


def searched_sweep(folder: Path, *, configurations: int = 12, seeds: int = 4, epochs: int = 6) -> Path:
    file = folder / "searched.yaml"
    file.write_text(SEARCH.format(configurations=configurations, seeds=seeds, epochs=epochs))
    return file


def decisions(storage: Path) -> list[dict[str, Any]]:
    """The decisions without times, and without the starts of drivers."""
    return timeless((storage / "sweeps" / "searched" / "decisions.jsonl").read_text())


def timeless(text: str) -> list[dict[str, Any]]:
    """The same of the text of a decisions.jsonl."""
    parsed = [json.loads(line) for line in text.splitlines()]
    return [{key: value for key, value in one.items() if key not in OF_TIMES} for one in parsed if one["kind"] != "start"]


def assert_same_course(storage: Path, undisturbed: Path) -> None:
    """The same decisions in the same order, the same models, one MLflow run for each trial, none left RUNNING."""
    assert decisions(storage) == decisions(undisturbed)
    assert digests("searched", storage) == digests("searched", undisturbed)
    stopped = stopped_trials(decisions(storage))
    keys = {trial["key"] for trial in status("searched", storage)["trials"]}
    assert_runs(f"sqlite:///{storage}/mlflow.db", keys, stopped)
    for key in keys:
        assert (storage / "trials" / key / "stopped.json").exists() == (key in stopped)


def stopped_trials(course: list[dict[str, Any]]) -> set[str]:
    return {one["key"] for one in course if one["kind"] == "result" and one["state"] == "stopped"}


def assert_runs(tracking_uri: str, keys: set[str], stopped: set[str]) -> None:
    """One MLflow run for each trial, none left RUNNING, with why it began and was stopped."""
    runs = sweep_runs(tracking_uri)
    counts = Counter(run.data.tags["drive.trial_key"] for run in runs if run.data.tags["drive.role"] == "trial")
    assert counts == dict.fromkeys(keys, 1)
    states = {run.data.tags["drive.trial_key"]: run for run in runs if run.data.tags["drive.role"] == "trial"}
    for key, run in states.items():
        assert run.info.status == ("KILLED" if key in stopped else "FINISHED"), (key, run.info.status)
        assert ("drive.stopped" in run.data.tags) == (key in stopped)
        assert run.data.tags.get("drive.reason") or "dense" in run.info.run_name
    assert "RUNNING" not in {run.info.status for run in runs}


def sweep_runs(tracking_uri: str) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, max_results=5000))
