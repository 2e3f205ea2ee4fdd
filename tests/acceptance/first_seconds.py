"""The first seconds of a storage: sweeps that begin together, and sweeps that are killed while MLflow's database is being made.

    python -m tests.acceptance.first_seconds [TIMES [PART]]      # 20, all of store, together, killed

Three parts, each TIMES times at moments spread over what the making takes: two processes open a new store at once, and one is
killed; two sweeps begin at once in a fresh storage; one sweep is killed (driver, tracking process and Ray) and continued.
Counted: databases that are broken, events that are lost (after the end each trial has its FINISHED run with every metric point
and its model, compared with the trial folders), sweeps that did not end. All must be 0. A sweep whose Ray does not start within
Ray's own 30 s, on a machine with other work, is resumed, and counted.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.tracking.client import TrackingTarget, import_mlflow
from orchestrator.tracking.database_file import condition
from tests.support.cli import command, kill_all, start, status
from tests.support.mlflow_stores import Content
from trainables.records.metrics import points_from_lines

SWEEP = """\
name: {name}
dataset: {{name: digits, limit: 300}}
model: convnet
search: {{seed: {seeds}}}
warmup_epochs: 0
prune_iterations: 1
sparsity: 0.9
training: {{epochs: 1, batch_size: 50, lr: 0.1}}
baseline: none
precision: fp32
resources: {{device: cpu, cpus_per_trial: 2}}
"""
SWEEPS = {"one": [0, 1], "two": [2, 3]}
OPEN = """
import sys
from orchestrator.tracking.client import TrackingTarget, connect, import_mlflow
folder = sys.argv[1]
import_mlflow()
print("ready", flush=True)
sys.stdin.readline()
connect(TrackingTarget(
    uri=f"sqlite:///{folder}/mlflow.db", experiment="drive-sweep", artifact_root=f"{folder}/artifacts", storage=folder
))
"""
MAKING_S = 4.0  # a new database takes about two seconds alone
SWEEP_S = 12.0  # from the command to the first seconds of training


@dataclass
class Counts:
    tries: int = 0
    broken: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    aside: int = 0
    ray_starts: int = 0  # that took Ray too long

    def print(self, what: str, began: float) -> None:
        print(
            f"{what}: {self.tries} tries in {time.monotonic() - began:.0f} s, {len(self.broken)} databases broken, "
            f"{self.aside} set aside, {len(self.lost)} events lost, {len(self.unfinished)} sweeps that did not end, "
            f"{self.ray_starts} starts of Ray that took too long",
            flush=True,
        )
        for line in (*self.broken, *self.lost, *self.unfinished):
            print(f"  {line}", flush=True)


def main(times: int, only: str = "") -> int:
    import_mlflow()
    bad = 0
    for name, what, part in (
        ("store", "two processes open a new store at once, one is killed", opened_at_once),
        ("together", "two sweeps begun at once in a fresh storage", begun_at_once),
        ("killed", "a sweep killed in its first seconds, then continued", killed),
    ):
        if only not in ("", name):
            continue
        began, counts = time.monotonic(), Counts()
        for number in range(times):
            with tempfile.TemporaryDirectory(prefix="drive-sweep-proof-") as scratch:
                part(Path(scratch), (number + 0.5) / times, counts)
            counts.tries += 1
            print(f"  {counts.tries} of {times}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        counts.print(what, began)
        bad += len(counts.broken) + len(counts.lost) + len(counts.unfinished)
    return 1 if bad else 0


def opened_at_once(root: Path, moment: float, counts: Counts) -> None:
    storage = root / "runs"
    children = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, str(storage)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    for child in children:
        assert child.stdout is not None
        child.stdout.readline()
    for child in children:
        assert child.stdin is not None
        child.stdin.write(b"\n")
        child.stdin.flush()
    time.sleep(moment * MAKING_S)
    children[0].kill()
    children[0].communicate()
    _, errors = children[1].communicate()
    if children[1].returncode:
        counts.unfinished.append(f"killed after {moment * MAKING_S:.2f} s, the other one: {errors.decode()[-500:]}")
    look_at_database(storage, f"after {moment * MAKING_S:.2f} s", counts)


def begun_at_once(root: Path, moment: float, counts: Counts) -> None:
    storage = root / "runs"
    running = {name: start("run", file, "--storage", storage, "--quiet") for name, file in sweep_files(root).items()}
    for name, process in running.items():
        output, _ = process.communicate(timeout=600)
        if process.returncode:
            resume_if_ray_was_slow(storage, name, process.returncode, output, counts)
    for name in running:
        compare_with_folders(storage, name, counts)


def killed(root: Path, moment: float, counts: Counts) -> None:
    storage, file = root / "runs", sweep_files(root)["one"]
    process = start("run", file, "--storage", storage, "--quiet")
    time.sleep(moment * SWEEP_S)
    kill_all(process)
    was_planned = (storage / "sweeps/one/trials.json").exists()
    again = ("resume", "one") if was_planned else ("run", file)
    done = subprocess.run(command(*again, "--storage", storage, "--quiet"), capture_output=True, text=True, check=False)
    if done.returncode:
        resume_if_ray_was_slow(storage, "one", done.returncode, done.stderr, counts)
    compare_with_folders(storage, "one", counts)


def resume_if_ray_was_slow(storage: Path, name: str, code: int, output: str, counts: Counts) -> None:
    for _ in range(3):
        if "timed out during startup" not in output:
            break
        counts.ray_starts += 1
        again = ("resume", name, "--storage", storage, "--quiet")
        done = subprocess.run(command(*again), capture_output=True, text=True, check=False)
        code, output = done.returncode, done.stderr
        if code == 0:
            return
    counts.unfinished.append(f"{name} ended with {code}: {output[-500:]}")


def sweep_files(root: Path) -> dict[str, Path]:
    files = {name: root / f"{name}.yaml" for name in SWEEPS}
    for name, file in files.items():
        file.write_text(SWEEP.format(name=name, seeds=SWEEPS[name]))
    return files


def look_at_database(storage: Path, when: str, counts: Counts) -> None:
    content = condition(storage / "mlflow.db")
    counts.aside += len(list(storage.glob("mlflow.db.damaged-?")))
    if content != "whole":
        counts.broken.append(f"{when}: {content}")


def compare_with_folders(storage: Path, name: str, counts: Counts) -> None:
    """What the sweep's trial folders hold and MLflow does not."""
    look_at_database(storage, name, counts)
    answer = status(name, storage)
    if answer["finished"] != len(SWEEPS[name]) or answer["tracking_pending"]:
        counts.unfinished.append(
            f"{name}: {answer['finished']} finished, {answer['tracking_pending']} pending: {answer['tracking_error']}"
        )
    target = TrackingTarget(uri=f"sqlite:///{storage}/mlflow.db", experiment="drive-sweep", artifact_root=None)
    content = Content(target)
    models = {model.model_id: model for model in content.models}
    for trial in answer["trials"]:
        key = trial["key"]
        runs = [
            run for run in content.runs if run.data.tags.get("drive.trial_key") == key and run.data.tags["drive.sweep"] == name
        ]
        if len(runs) != 1:
            counts.lost.append(f"{name}: trial {key} has {len(runs)} runs")
            continue
        (run,) = runs
        points = points_from_lines((storage / f"trials/{key}/metrics.jsonl").read_bytes())
        recorded = sorted((point.key, point.step, point.value, point.time_ms) for point in points)
        model = models.get(run.data.tags.get("drive.model_id", ""))
        shown = run.info.run_id == trial["mlflow_run_id"] and run.info.status == "FINISHED"
        if not shown or content.points(run) != recorded:
            counts.lost.append(
                f"{name}: run of {key} is {run.info.status}, {len(content.points(run))} of {len(recorded)} points"
            )
        if model is None or str(model.status) != "READY" or not Path(model.artifact_location, "MLmodel").is_file():
            counts.lost.append(f"{name}: model of {key}")
    if any(run.info.status == "RUNNING" for run in content.runs if run.data.tags.get("drive.sweep") == name):
        counts.lost.append(f"{name}: a run is left RUNNING")


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20, *sys.argv[2:3]))
