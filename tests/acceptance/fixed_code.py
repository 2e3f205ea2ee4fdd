"""A sweep of 12 trials with a planted bug that fails four of them: fixed, and resumed in both ways.

    python -m tests.acceptance.fixed_code

The bug is in a pruning method of the user's, on a path that four trials take. Shown, for `resume --accept-changed` and for
`resume --recompute`: trials kept and run; kept digests unchanged, and all others those of a sweep that had the fixed file from
the start; one MLflow run for each trial, and none left open. Without an option `resume` and `run` refuse, and change nothing.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.support.cli import digests, drive_sweep, status

BUG = """
    if context.config.warmup_epochs and context.round_ == 4:
        scores = {name: score for name, score in list(scores.items())[1:]}
"""
FIXED = """\
def scored(context):
    loss, gradients = context.loss_and_gradients(context.batches())
    scores = {name: (weight * gradients[name]).abs() for name, weight in context.weights.items()}
    return context.flatten(scores)
"""
PLANTED = FIXED.replace("\n    return", f"{BUG}    return")
SWEEP = """\
name: bug
dataset: {name: digits, limit: 300}
model: convnet
method: {module: scores.scored}
search: {warmup_epochs: [0, 1, 2], prune_iterations: [1, 4], seed: [0, 1]}
sparsity: 0.9
baseline: none
training: {epochs: 2, batch_size: 50, lr: 0.1}
precision: fp32
resources: {device: cpu, cpus_per_trial: 1}
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        file, module = folder / "bug.yaml", folder / "scores.py"
        file.write_text(SWEEP)
        module.write_text(PLANTED)
        kept, anew, fixed = (folder / name for name in ("accepted", "recomputed", "fixed"))
        place = ("--set", f"modules_path={folder}")
        drive_sweep("run", file, *place, "--storage", kept, "--quiet", expect=1, timeout_s=900)
        before, runs = results(kept), runs_of(kept)
        print(f"with the bug: {len(before)} of 12 trials finished, {states(runs)} in MLflow", flush=True)
        assert len(before) == 8

        module.write_text(FIXED)
        shutil.copytree(kept, anew)
        for words in (("resume", "bug"), ("run", file, *place)):
            refused = drive_sweep(*words, "--storage", kept, expect=2)
            assert "8 of 12 trials were finished before" in refused.stderr, refused.stderr
            assert "--accept-changed scores.py" in refused.stderr
            assert "--recompute" in refused.stderr
        assert results(kept) == before

        drive_sweep("resume", "bug", "--storage", kept, "--quiet", "--accept-changed", "scores.py", timeout_s=900)
        drive_sweep("resume", "bug", "--storage", anew, "--quiet", "--recompute", timeout_s=900)
        drive_sweep("run", file, *place, "--storage", fixed, "--quiet", timeout_s=900)
        reference = digests("bug", fixed)
        assert len(reference) == 12
        for name, storage in (("--accept-changed", kept), ("--recompute", anew), ("fixed from the start", fixed)):
            print(row(name, storage, before, reference), flush=True)
        assert digests("bug", anew) == reference
        assert {key: digest for key, digest in results(kept).items() if key in before} == before
        assert digests("bug", kept) == reference  # the bug touched no other bits
        report = json.loads(drive_sweep("report", "bug", "--storage", kept, "--json").stdout)
        assert [(one["file"], one["trials"], one["of"]) for one in report["earlier_files"]] == [("scores.py", 8, 12)]
        for storage in (kept, anew):
            again = drive_sweep("resume", "bug", "--storage", storage)
            assert "nothing to do" in again.stderr, again.stderr


def row(name: str, storage: Path, before: dict[str, str], reference: dict[str, str | None]) -> str:
    """A line of the table."""
    trials, runs = status("bug", storage)["trials"], runs_of(storage)
    of_trials = [run for run in runs if run["role"] == "trial"]
    current = [run for run in of_trials if not run["superseded"]]
    assert sorted(run["key"] for run in current) == sorted(trial["key"] for trial in trials)
    assert all(run["status"] == "FINISHED" for run in current)
    assert not any(run["status"] == "RUNNING" for run in runs)
    kept = sum(before.get(trial["key"]) == trial["model_sha256"] for trial in trials)
    equal = sum(reference[trial["name"]] == trial["model_sha256"] for trial in trials)
    return (
        f"{name}: {len(trials) - kept} run, {kept} kept with their digests, {equal} of 12 digests as with the fixed file; "
        f"MLflow: {states(current)}, superseded {states([run for run in of_trials if run['superseded']]) or 'none'}"
    )


def results(storage: Path) -> dict[str, str]:
    """Key of each finished trial of the storage -> model_sha256."""
    files = storage.glob("trials/*/result.json")
    return {file.parent.name: json.loads(file.read_text())["model_sha256"] for file in files}


def runs_of(storage: Path) -> list[dict[str, Any]]:
    """Role, key and status of each MLflow run of the sweep, and whether it is superseded; as the database has them now."""
    with closing(sqlite3.connect(storage / "mlflow.db")) as database:
        states = dict(database.execute("select run_uuid, status from runs"))
        tags: dict[str, dict[str, str]] = {run: {} for run in states}
        for run, key, value in database.execute("select run_uuid, key, value from tags"):
            tags[run][key] = value
    return [
        {
            "role": tags[run]["drive.role"],
            "key": tags[run].get("drive.trial_key"),
            "status": state,
            "superseded": "drive.superseded" in tags[run],
        }
        for run, state in states.items()
    ]


def states(runs: list[dict[str, Any]]) -> str:
    counts = Counter(run["status"] for run in runs if run["role"] == "trial")
    return ", ".join(f"{count} {state}" for state, count in counts.most_common())


if __name__ == "__main__":
    main()
