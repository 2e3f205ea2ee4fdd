"""Sweeps whose trials take several workers, on a real Ray: recorded once, and whole after a worker was lost or stopped."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest

from tests.support.cli import (
    command_line,
    curves,
    descendants,
    digests,
    drive_sweep,
    kill_all,
    start,
    started,
    status,
    wait_for,
)
from tests.support.faulty_nodes import join
from tests.support.ray_nodes import RayNodes

SWEEP = """
name: gang
dataset: {{name: digits, limit: 300}}
model: convnet
search: {{prune_iterations: [1, 3]}}
warmup_epochs: 1
sparsity: 0.9
baseline: none
precision: fp32
training: {{epochs: {epochs}, batch_size: 50, lr: 0.1}}
checkpoint_seconds: 0
stage_timeout: {timeout}
resources: {{device: cpu, workers_per_trial: 2}}
tracking: {{models: none}}
"""
LONG_EPOCHS = 25  # in which a worker can be lost


def gang_sweep(folder: Path, epochs: int = 3, timeout: int = 600) -> Path:
    file = folder / "gang.yaml"
    file.write_text(SWEEP.format(epochs=epochs, timeout=timeout))
    return file


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    yield
    while started:
        process = started.pop()
        if process.poll() is None:
            kill_all(process)


def runs_of_trials(storage: Path) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{storage}/mlflow.db")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, max_results=1000)
    return [run for run in runs if run.data.tags["drive.role"] == "trial"]


def require_whole(storage: Path, trials: int) -> None:
    """Every trial finished with two workers, has one run in MLflow, and no point twice."""
    assert status("gang", storage)["finished"] == trials
    results = [json.loads(path.read_text()) for path in storage.glob("trials/*/result.json")]
    assert [one["fingerprints"][-1]["workers"] for one in results] == [2] * trials
    assert len(curves(storage)) == trials  # which refuses a point that is there twice
    runs = runs_of_trials(storage)
    assert [run.info.status for run in runs] == ["FINISHED"] * trials


def peer_of(process: Popen[str], storage: Path) -> int:
    """The process id of a worker other than the first, once the trial has a checkpoint to go on from."""
    wait_for(lambda: list(storage.glob("trials/*/checkpoint*")))

    def peers() -> list[int]:
        return [pid for pid in descendants(process.pid) if "Peer" in command_line(pid)]

    return int(wait_for(peers)[0])


@pytest.mark.long
def test_two_workers_train_a_trial_that_is_recorded_once(tmp_path: Path) -> None:
    storage = tmp_path / "runs"
    drive_sweep("run", gang_sweep(tmp_path), "--storage", storage, "--quiet")
    require_whole(storage, 2)
    plan = drive_sweep("plan", gang_sweep(tmp_path, epochs=4), "--storage", storage).stdout
    assert "2 train each trial together and hold one slot: 2 CPUs, on one or more nodes" in plan
    assert "by 2 finished trials" in plan
    report = drive_sweep("report", "gang", "--storage", storage).stdout
    assert "different fingerprints" not in report
    assert "trials were trained by 2 workers each" in report


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage of the long sweep, of which no worker was lost."""
    folder = tmp_path_factory.mktemp("undisturbed")
    drive_sweep("run", gang_sweep(folder, LONG_EPOCHS), "--storage", folder / "runs", "--quiet")
    return folder / "runs"


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "message"),
    [
        (signal.SIGKILL, "worker 2 of 2 was lost"),
        (signal.SIGSTOP, "worker 2 of 2: it was stopped by a signal (SIGSTOP); worker 1 of 2: it was "),
    ],
)
def test_trial_goes_on_without_a_worker_that_is_killed_or_stopped(
    number: int, message: str, undisturbed: Path, tmp_path: Path
) -> None:
    storage = tmp_path / "runs"
    process = start("run", gang_sweep(tmp_path, LONG_EPOCHS, timeout=10), "--storage", storage)
    os.kill(peer_of(process, storage), number)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "exit detail" not in output, output  # what Ray says of a lost process
    require_whole(storage, 2)
    log = (storage / "sweeps/gang/sweep.log").read_text()
    assert message in log, log
    assert sorted(json.loads(path.read_text())["attempt"] for path in storage.glob("trials/*/result.json")) == [1, 2]
    assert curves(storage) == curves(undisturbed)
    assert digests("gang", storage) == digests("gang", undisturbed)


@pytest.mark.long
def test_workers_on_two_nodes_train_one_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each node has room for one worker of a trial, and nothing beside it."""
    storage = tmp_path / "runs"
    with RayNodes() as cluster:
        for name, value in cluster.environment.items():
            monkeypatch.setenv(name, value)
        for _ in range(2):
            join(cluster, cpus=1, gpus=0)
        process = start("run", gang_sweep(tmp_path), "--storage", storage, "--address", cluster.gcs)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
    require_whole(storage, 2)


@pytest.mark.long
def test_trial_in_the_foreground_has_workers_too_and_is_interrupted_as_one(tmp_path: Path) -> None:
    """Ctrl-C reaches every process of the terminal; the trial leaves a checkpoint, goes on from it, and is reproduced."""
    storage, file = tmp_path / "runs", gang_sweep(tmp_path, LONG_EPOCHS)
    process = start("trial", file, "--index", 1, "--storage", storage)
    wait_for(lambda: list(storage.glob("trials/*/checkpoint*")))
    for pid in (process.pid, *descendants(process.pid)):
        os.kill(pid, signal.SIGINT)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 130, output
    assert "continues from there" in output
    drive_sweep("trial", file, "--index", 1, "--storage", storage)
    (path,) = storage.glob("trials/*/result.json")
    result = json.loads(path.read_text())
    assert (result["attempt"], [one["workers"] for one in result["fingerprints"]]) == (2, [2])
    again = drive_sweep("trial", file, "--index", 1, "--storage", storage)
    assert "computed again: the record is reproduced" in again.stderr
