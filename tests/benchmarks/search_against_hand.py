"""A recorded grid by hand, by this project, and as a search: `python -m tests.benchmarks.search_against_hand GRID SIDE [...]`.

GRID is digits or fashion, SIDE is hand, grid or search; sides run one after the other, each from nothing. With `--sample 60`
so many random trials are run by hand, and extrapolated: there is no answer then. An answer is the configuration with the best
mean validation accuracy at a sparsity. It is right if its mean in the recorded grid is within 0.3 points of the best, or one
standard error. Seconds are from the command to the answer, start and report included; CPU seconds are of all processes. The
load of the machine is printed before and after.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from orchestrator.search.decisions import Kind, from_text
from tests.benchmarks.search_replay import ENTRIES, TOLERANCE, grid_epochs, truth
from tests.benchmarks.timing import by_hand, ours
from tests.support.cli import drive_sweep
from tests.support.recorded_grid import METRIC, RecordedGrid, load_grid
from trainables.config.keys import from_canonical
from trainables.config.trial import TrialConfig

STRATEGY = "the same, budget of a quarter"
Answers = dict[Any, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one side took; `answers` are the recommended values of each sparsity."""

    epochs: int
    seconds: float
    cpu_seconds: float
    answers: Answers
    note: str = ""


def hand(grid: RecordedGrid, folder: Path, sample: int | None) -> Run:
    """All trials, or a random sample of them, whose time and epochs are extrapolated."""
    timed = by_hand(written(yaml.safe_load(grid.text), folder), folder / "hand", sample=sample)
    output = json.loads((folder / "hand" / "answer.json").read_bytes())
    trials = len(output["trials"])
    share = len(grid.curves) / trials
    start = timed.seconds - output["seconds"] + output["start_seconds"]
    run = Run(
        epochs=sum(len(curve) + int(point[0]) for point, curve in grid.curves.items()),
        seconds=start + (timed.seconds - start) * share,
        cpu_seconds=timed.cpu_seconds * share,
        answers={} if sample else best((trial["config"], trial[METRIC]) for trial in output["trials"]),
    )
    measured = f"{trials} trials, {timed.epochs} epochs, {timed.seconds:.0f} s, {timed.cpu_seconds:.0f} CPU seconds"
    return run if sample is None else replace(run, note=f"extrapolated from {measured}, of them {start:.0f} s of start")


def whole_grid(grid: RecordedGrid, folder: Path) -> Run:
    timed = ours(written(yaml.safe_load(grid.text), folder), folder / "storage")
    report = drive_sweep("report", yaml.safe_load(grid.text)["name"], "--storage", folder / "storage")
    results = (json.loads(path.read_bytes()) for path in (folder / "storage" / "trials").glob("*/result.json"))
    answers = best((asdict(from_canonical(TrialConfig, one["config"])), one["metrics"][METRIC]) for one in results)
    return Run(epochs=timed.epochs, seconds=timed.seconds + report.seconds, cpu_seconds=timed.cpu_seconds, answers=answers)


def search(grid: RecordedGrid, folder: Path) -> Run:
    entry, values = ENTRIES[STRATEGY], yaml.safe_load(grid.text)
    del values["search"]["seed"]
    assert entry.budget is not None
    values |= {**entry.keys, "budget": {"epochs": int(entry.budget * grid_epochs(grid))}}
    timed = ours(written(values, folder), folder / "storage")
    report = drive_sweep("report", values["name"], "--storage", folder / "storage")
    decisions = from_text((folder / "storage" / "sweeps" / values["name"] / "decisions.jsonl").read_text())
    ends = {one.group: one for one in decisions if one.kind is Kind.END}
    answers = {float(group.removeprefix("s")): end.values for group, end in ends.items()}
    trials = sum(one.kind is Kind.TRIAL for one in decisions)
    return Run(
        epochs=sum(one.epoch or 0 for one in decisions if one.kind is Kind.RESULT),
        seconds=timed.seconds + report.seconds,
        cpu_seconds=timed.cpu_seconds,
        answers=answers,
        note=f"{trials} trials; {', '.join(f'{group}: {end.state}' for group, end in ends.items())}",
    )


SIDES = {"grid": whole_grid, "search": search}


def written(values: dict[str, Any], folder: Path) -> Path:
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    return file


def best(trials: Iterable[tuple[dict[str, Any], float]]) -> Answers:
    """For each sparsity the configuration with the best mean over its seeds."""
    rows: dict[tuple[float, int, int], list[float]] = {}
    for config, value in trials:
        rows.setdefault((config["sparsity"], config["warmup_epochs"], config["prune_iterations"]), []).append(value)
    means = {point: statistics.fmean(row) for point, row in rows.items()}
    answers: Answers = {}
    for sparsity, warmup, iterations in sorted(means, key=means.__getitem__):
        answers[sparsity] = {"warmup_epochs": warmup, "prune_iterations": iterations}
    return answers


def judgement(grid: RecordedGrid, sparsity: float, values: dict[str, Any]) -> str:
    """Whether a configuration is right, by the recorded means over seeds."""
    means, errors = truth(grid)
    rows = {point: mean for point, mean in means.items() if point[2] == sparsity}
    first = max(rows, key=rows.__getitem__)
    loss = rows[first] - rows[values["warmup_epochs"], values["prune_iterations"], sparsity]
    word = "right" if loss <= max(TOLERANCE, errors[first]) else "wrong"
    text = f"warm-up {values['warmup_epochs']}, {values['prune_iterations']} iterations"
    return f"{sparsity:g}: {text}: {word}, {100 * loss:.2f} points below the best (warm-up {first[0]}, {first[1]} iterations)"


def main() -> None:
    parser = argparse.ArgumentParser(description="a recorded grid by hand, by this project, and as a search")
    parser.add_argument("grid", choices=("digits", "fashion"))
    parser.add_argument("sides", nargs="+", choices=("hand", "grid", "search"))
    parser.add_argument("--sample", type=int, help="trials that run by hand; without it all of them")
    options = parser.parse_args()
    grid = load_grid(options.grid)
    for side in options.sides:
        with tempfile.TemporaryDirectory(prefix="drive-sweep-hand-") as name:
            folder = Path(name)
            os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
            before = os.getloadavg()
            run = hand(grid, folder, options.sample) if side == "hand" else SIDES[side](grid, folder)
        loads = f"load {before[0]:.1f} before, {os.getloadavg()[0]:.1f} at the end, {os.getloadavg()[2]:.1f} in 15 minutes"
        print(f"{options.grid}, {side}: {run.epochs} epochs, {run.seconds:.0f} s, {run.cpu_seconds:.0f} CPU seconds; {loads}")
        if run.note:
            print(f"  {run.note}")
        for sparsity, values in sorted(run.answers.items()):
            print(f"  {judgement(grid, sparsity, values)}", flush=True)


if __name__ == "__main__":
    main()
