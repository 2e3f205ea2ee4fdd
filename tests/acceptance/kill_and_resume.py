"""Kills the driver and its Ray processes with SIGKILL at random moments of a sweep, resumes after each, and compares.

    python -m tests.acceptance.kill_and_resume [--kills 5] [--seed 0] [--sweep digits] [--set KEY=VALUE]

Shown at the end: all trials finished, every model_sha256 and metric point equal to an undisturbed sweep's, one MLflow run a
trial, no metric point twice, none missing, nothing RUNNING.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.acceptance.sweep_options import add_sweep_options, sweep_of
from tests.support.cli import curves, digests, drive_sweep, kill_all, start, status, wait_for


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    add_sweep_options(parser)
    options = parser.parse_args()
    sweep, name, settings = sweep_of(options)
    chance = random.Random(options.seed)

    with tempfile.TemporaryDirectory() as scratch:
        whole, killed = Path(scratch, "whole"), Path(scratch, "killed")
        answer = drive_sweep("run", sweep, *settings, "--storage", whole, "--quiet", timeout_s=3600)
        total = status(name, whole)["finished"]
        print(f"undisturbed: {total} finished in {answer.seconds:.0f} s", flush=True)

        for kill in range(options.kills):
            first = kill == 0
            process = start(*(("run", sweep, *settings) if first else ("resume", name)), "--storage", killed)
            before = len(list(killed.glob("trials/*/result.json")))
            # Each kill falls somewhere in the next sixth of the sweep, between or within stages.
            target = min(before + chance.randint(0, total // 6), total - 1)
            wait_for(lambda target=target: len(list(killed.glob("trials/*/result.json"))) >= target, timeout_s=600)
            time.sleep(chance.uniform(0, 2))
            kill_all(process)
            print(f"kill {kill + 1}: {len(list(killed.glob('trials/*/result.json')))} finished", flush=True)
        drive_sweep("resume", name, "--storage", killed, "--quiet", timeout_s=3600)

        state = status(name, killed)
        assert state["finished"] == state["total"] == total, state
        assert digests(name, killed) == digests(name, whole), "a model differs"
        assert curves(killed) == curves(whole), "a metric point differs"
        check_mlflow(killed, total)
        print(f"{total} finished; all digests and points equal; one run a trial; nothing RUNNING")


def check_mlflow(storage: Path, total: int) -> None:
    """MLflow holds exactly the points of the trial folders, each once, in one run a trial."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{storage}/mlflow.db")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = list(client.search_runs(experiments, max_results=1000))
    assert Counter(run.info.status for run in runs) == {"FINISHED": len(runs)}, Counter(run.info.status for run in runs)
    trials = {run.data.tags["drive.trial_key"]: run for run in runs if run.data.tags["drive.role"] == "trial"}
    assert sum(run.data.tags["drive.role"] == "trial" for run in runs) == len(trials) == total, "a second run of a trial"
    points = 0
    for key, run in trials.items():
        recorded = curves_with_costs(storage, key)
        logged = [
            (key, point.step, point.value)
            for key in run.data.metrics
            for point in client.get_metric_history(run.info.run_id, key)
        ]
        assert len(logged) == len(set(logged)), f"run {run.info.run_name} holds a point twice"
        assert set(logged) == recorded, f"run {run.info.run_name}: points differ from its record"
        points += len(logged)
    models = client.search_logged_models(experiments, max_results=1000)
    assert len(models) == total, f"{len(models)} models"
    print(f"MLflow: {len(trials)} trial runs, {points} points, {len(models)} models")


def curves_with_costs(storage: Path, key: str) -> set[tuple[str, int, float]]:
    lines = (storage / "trials" / key / "metrics.jsonl").read_text().splitlines()
    return {(point["key"], point["step"], point["value"]) for point in map(json.loads, lines)}


if __name__ == "__main__":
    main()
