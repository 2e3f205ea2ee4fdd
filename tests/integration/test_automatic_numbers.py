"""A sweep with automatic numbers on real Ray and a local MLflow: one warm-up for all sparsities, the choices everywhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.cli import drive_sweep, status
from tests.support.searched_sweep import sweep_runs

SWEEP = """\
name: auto
dataset: {name: digits, limit: 300}
model: convnet
warmup_epochs: auto
prune_iterations: auto
warmup: {most: 6, window: 1, rule: overlap, threshold: 0.5}
iterations: {most: 4}
search: {sparsity: [0.5, 0.98]}
baseline: none
training: {epochs: 2, batch_size: 20, lr: 0.05}
precision: fp32
resources: {device: cpu, cpus_per_trial: 1, max_concurrent: 1}
"""


@pytest.mark.long
def test_sweep_shares_and_shows_an_automatic_warmup(tmp_path: Path) -> None:
    file, storage = tmp_path / "auto.yaml", tmp_path / "runs"
    file.write_text(SWEEP)
    drive_sweep("run", file, "--storage", storage, "--quiet")
    trials = status("auto", storage)["trials"]
    results = [json.loads((storage / "trials" / one["key"] / "result.json").read_text()) for one in trials]
    lengths = [result["choices"]["warmup_epochs"]["value"] for result in results]
    snapshots = [path.name for path in storage.glob("warmups/*/epoch-*")]
    assert len(snapshots) == len(set(lengths))
    assert {int(name[6:10]) for name in snapshots} == set(lengths)
    (warmup,) = json.loads((storage / "sweeps" / "auto" / "state.json").read_text())["warmups"].values()
    assert warmup["trained_epochs"] == max(lengths)
    report = json.loads(drive_sweep("report", "auto", "--storage", storage, "--json").stdout)
    for row, length in zip(report["settings"], lengths, strict=True):
        assert (row["warmup_epochs"], row["chosen_warmup_epochs"]) == ("auto", [length])
        assert row["total_epochs"] == length + 2
    log = drive_sweep("logs", "auto", "--storage", storage).stdout
    runs = {run.data.tags.get("drive.trial_key"): run for run in sweep_runs(f"sqlite:///{storage}/mlflow.db")}
    for one, result in zip(trials, results, strict=True):
        choice = result["choices"]["warmup_epochs"]
        assert f"warmup_epochs {choice['value']}: {choice['reason']}" in log
        run = runs[one["key"]]
        assert run.data.params["warmup_epochs"] == "auto"
        assert run.data.tags["drive.chosen.warmup_epochs"] == f"{choice['value']}: {choice['reason']}"
        assert run.data.metrics["warmup/chosen_epochs"] == choice["value"]
