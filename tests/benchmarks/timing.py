"""One run of a sweep, ours or by hand, in processes of its own, and where its time went."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import mean
from typing import Any

from orchestrator.planning.plan import make_plan
from orchestrator.spec.loader import load_spec
from orchestrator.storage.factory import open_storage
from tests.support.cli import descendants, drive_sweep
from trainables.config.keys import from_canonical
from trainables.config.trial import TrialConfig

TICKS = os.sysconf("SC_CLK_TCK")
WATCH_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Timed:
    """What one run of a whole sweep took.

    Attributes:
        seconds: of the command, from the start of its process to its end.
        computing: seconds of training and pruning, over all trials and warm-ups.
        epochs: training epochs that were computed, warm-ups included.
        accuracy: test accuracy, mean over the trials.
        cpu_seconds: of the command and all processes that it started.
        tracking_cpu_seconds: of what writes to MLflow, its import aside; not known of a program by hand.
    """

    seconds: float
    computing: float
    epochs: int
    accuracy: float
    cpu_seconds: float
    tracking_cpu_seconds: float = float("nan")

    def other(self, slots: int) -> float:
        """Seconds of all slots in which nothing was trained or pruned: start-up, processes, files, tracking, waiting."""
        return self.seconds * slots - self.computing


def ours(file: Path, storage: Path, *options: str) -> Timed:
    """`drive-sweep run` of a sweep file into a fresh storage."""
    with watched_cpu() as cpu:
        run = drive_sweep("run", file, "--storage", storage, "--quiet", *options, timeout_s=3600)
    results = [json.loads(path.read_bytes()) for path in sorted((storage / "trials").glob("*/result.json"))]
    costs = [result["metrics"] for result in results]
    shared: dict[str, tuple[int, float]] = {}  # trunk -> epochs and seconds of its longest warm-up
    warmups: list[tuple[int, float]] = []
    epochs = 0
    for result, cost in zip(results, costs, strict=True):
        config = from_canonical(TrialConfig, result["config"])
        epochs += config.sparse_epochs
        warmup = config.warmup_epochs, cost["cost/warmup_seconds"]
        if result["warmup_key"]:
            shared[result["warmup_key"]] = max(warmup, shared.get(result["warmup_key"], (0, 0.0)))
        else:
            warmups.append(warmup)
    warmups += shared.values()
    return Timed(
        seconds=run.seconds,
        computing=sum(cost["cost/total_seconds"] - cost["cost/warmup_seconds"] for cost in costs)
        + sum(seconds for _, seconds in warmups),
        epochs=epochs + sum(length for length, _ in warmups),
        accuracy=mean(cost["test/accuracy"] for cost in costs),
        cpu_seconds=sum(cpu.values()),
        tracking_cpu_seconds=json.loads(next((storage / "sweeps").glob("*/state.json")).read_bytes())["tracking_cpu_seconds"],
    )


def by_hand(file: Path, folder: Path, *options: str, sample: int | None = None) -> Timed:
    """The program baseline_tune.py on the trials of the same sweep file; what it prints is in answer.json of the folder.

    Args:
        sample: only so many of the trials, drawn at random.
    """
    plan = hand_plan(file)
    if sample is not None:
        plan["trials"] = Random(0).sample(plan["trials"], sample)
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text(json.dumps(plan))
    command = [sys.executable, "-m", "tests.benchmarks.baseline_tune", str(folder / "plan.json"), str(folder / "out"), *options]
    started_at = time.monotonic()
    with watched_cpu() as cpu:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=7200)
    seconds = time.monotonic() - started_at
    answer = done.stdout.splitlines()[-1]
    (folder / "answer.json").write_text(answer)
    trials = json.loads(answer)["trials"]
    return Timed(
        seconds=seconds,
        computing=sum(trial["seconds"] for trial in trials),
        epochs=sum(trial["config"].get("warmup_epochs", 0) + plan["training"]["epochs"] for trial in trials),
        accuracy=mean(trial["test/accuracy"] for trial in trials),
        cpu_seconds=sum(cpu.values()),
    )


@contextmanager
def watched_cpu() -> Iterator[dict[int, float]]:
    """Process id -> CPU seconds of every process that lives below this one while the block runs, looked at every second."""
    seconds: dict[int, float] = {}
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(timeout=WATCH_S):
            for pid in descendants(os.getpid()):
                with suppress(OSError):
                    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                    seconds[pid] = (int(fields[11]) + int(fields[12])) / TICKS

    watch = threading.Thread(target=look, daemon=True)
    watch.start()
    try:
        yield seconds
    finally:
        ended.set()
        watch.join()


def hand_plan(file: Path) -> dict[str, Any]:
    """The trials of a sweep file in the form that baseline_tune.py reads."""
    spec = load_spec(str(file))
    plan = make_plan(spec, open_storage(str(file.parent / "unused")))
    dataset, training = spec.dataset, spec.training
    names = ("method", "warmup_epochs", "prune_iterations", "sparsity", "seed")
    return {
        "dataset": dataset.model_dump(include={"name", "root", "image_size", "limit", "validation"}),
        "model": spec.model,
        "cpus": len(os.sched_getaffinity(0)),
        "cpus_per_trial": 1,
        "trials": [{name: getattr(trial.config, name) for name in names} for trial in plan.trials],
        "training": training.model_dump(include={"epochs", "batch_size", "lr", "momentum", "weight_decay"}),
    }
