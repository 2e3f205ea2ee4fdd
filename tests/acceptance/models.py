"""Loads every model that MLflow holds of a sweep of digits, in one fresh process that may read no pickle, and tests it.

    python -m tests.acceptance.models [STORAGE] [--sweep digits] [--set KEY=VALUE]
    (default ./runs; or a storage that this command makes when there is none)

Shown: one run of the sweep and one of each trial, all FINISHED, with a model each; a model has the accuracy of its run on the
test set, and where single weights are pruned its mask bits are exactly as many as the sparsity asks for.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.acceptance.sweep_options import add_sweep_options, sweep_of
from tests.support.cli import drive_sweep
from trainables.config.counts import kept_count
from trainables.data.source import DatasetSource


def main() -> None:
    if "--child" in sys.argv:
        check(Path(sys.argv[-1]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("storage", nargs="?", default="runs")
    add_sweep_options(parser)
    options = parser.parse_args()
    sweep, name, settings = sweep_of(options)
    with tempfile.TemporaryDirectory() as scratch:
        storage = Path(options.storage).absolute()
        if not (storage / "sweeps" / name).exists():
            storage = Path(scratch, "runs")
            drive_sweep("run", sweep, *settings, "--storage", storage, "--quiet", timeout_s=3600)
        environment = os.environ | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
        command = [sys.executable, "-W", "ignore", "-m", "tests.acceptance.models", "--child", str(storage)]
        subprocess.run(command, env=environment, check=True)


def check(storage: Path) -> None:
    import mlflow
    import torch

    torch.set_num_threads(1)  # as the sweep's trials
    mlflow.set_tracking_uri(f"sqlite:///{storage}/mlflow.db")
    check_models(mlflow.MlflowClient())


def check_models(client: Any) -> None:
    """Loads the models of a sweep of digits from the store that MLflow is set to, which is also the client's."""
    import mlflow
    import torch

    from trainables.data import datasets
    from trainables.export.sparse_model import load_sparse_model

    (experiment,) = [one.experiment_id for one in client.search_experiments() if one.name == "drive-sweep"]
    runs = client.search_runs([experiment], max_results=1000)
    roles = [run.data.tags["drive.role"] for run in runs]
    trials = roles.count("trial")
    assert roles.count("sweep") == 1
    assert trials > 1
    assert {run.info.status for run in runs} == {"FINISHED"}
    models = client.search_logged_models([experiment], max_results=1000)
    assert len(models) == trials, len(models)

    images = datasets.load(DatasetSource(name="digits"))
    inputs, labels = (images.test_images.float() / 255).numpy(), images.test_labels
    accuracies = {run.info.run_id: run for run in runs}
    for model in models:
        run = accuracies[model.source_run_id]
        scores = torch.from_numpy(mlflow.pyfunc.load_model(f"models:/{model.model_id}").predict(inputs))
        accuracy = int((scores.argmax(1) == labels).sum()) / len(labels)
        assert accuracy == run.data.metrics["test/accuracy"], f"{run.info.run_name}: {accuracy}"
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(model.artifact_location.removeprefix("file://"))
            if not folder.is_absolute():  # behind a server
                folder = Path(mlflow.artifacts.download_artifacts(model.artifact_location, dst_path=scratch))
            (weights,) = folder.rglob("*.zst")
            masks = load_sparse_model(weights).masks
        if run.data.params.get("granularity") == "channel":
            continue
        kept, prunable = sum(int(mask.sum()) for mask in masks.values()), sum(mask.numel() for mask in masks.values())
        assert kept == kept_count(float(run.data.params["sparsity"]), prunable), f"{run.info.run_name}: {kept}"
    print(f"1 sweep run and {trials} trial runs FINISHED; {trials} models loaded without pickle: accuracies and counts exact")


if __name__ == "__main__":
    main()
