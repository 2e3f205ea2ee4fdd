"""A sweep of ten thousand trials whose driver is killed three times.

    python -m tests.acceptance.large_sweep [--trials 10000] [--kills 3] [--slots 2] [--sleep 0] [--ready 0]

The trials compute nothing (tests/support/noop_cli.py); command, driver, Ray, storage and MLflow are real.
The driver and its Ray processes get SIGKILL when a share of the trials is finished, and `resume` goes on. With --ready so many
finished trials are in the storage beforehand, as if another sweep had computed them: their records are real, only no stage of
this run wrote them.

Shown: all finished, each with one run in MLflow, all points of the records there once, nothing RUNNING; how long `resume` takes
until its first trial ends, and `status`, `report` and `plan`; the memory of the driver.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from pathlib import Path

from orchestrator.planning.plan import make_plan
from orchestrator.spec.loader import load_spec
from orchestrator.storage.factory import open_storage
from orchestrator.storage.layout import StageFolders
from tests.acceptance.load import SWEEP, recorded_points, stored_points
from tests.benchmarks.noop_stage import SLEEP_S, publish_result
from tests.support import noop_cli
from tests.support.cli import descendants, drive_sweep, wait_for
from trainables.config.keys import canonical
from trainables.data.staging import StagedDataset
from trainables.records.metrics import MetricLog
from trainables.runtime.device import Runtime
from trainables.worker.stage import Stage, SweepSettings

HOURS_S = 4 * 3600.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--sleep", type=float, default=0.0, help="seconds of a trial")
    parser.add_argument("--ready", type=int, default=0, help="trials that are finished beforehand")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="drive-sweep-large-") as scratch:
        run(Path(scratch), options)


def run(root: Path, options: argparse.Namespace) -> None:
    file, storage = root / "load.yaml", root / "runs"
    file.write_text(SWEEP.format(seeds=", ".join(map(str, range(options.trials)))))
    write_ready(file, storage, options.ready)
    left = options.trials - options.ready
    targets = [options.ready + left * (number + 1) // (options.kills + 1) for number in range(options.kills)]
    for number, target in enumerate([*targets, options.trials]):
        first, last = number == 0, number == options.kills
        before, began = finished(storage), time.monotonic()
        log = root / f"{number}.log"
        process = start(*(("run", file) if first else ("resume", "load")), "--storage", storage, options=options, log=log)
        try:
            has_begun = partial(has_reached, process, storage, before + 1)
            wait_for(has_begun, timeout_s=HOURS_S, every_s=0.5)
            to_first = time.monotonic() - began
            if last:
                peak = 0.0
                while process.poll() is None:
                    peak = max(peak, peak_mb(process.pid))
                    time.sleep(0.5)
                assert process.returncode == 0, log.read_text()
            else:
                wait_for(partial(has_reached, process, storage, target), timeout_s=HOURS_S, every_s=0.5)
                assert process.poll() is None, "ended before it was killed; --sleep makes trials longer"
                peak = peak_mb(process.pid)
        finally:
            kill(process)
        seconds, count = time.monotonic() - began, finished(storage)
        print(
            f"{'run' if first else 'resume'}: first trial ended after {to_first:.1f} s; "
            f"{count - before} trials in {seconds - to_first:.0f} s, then {'done' if last else 'SIGKILL'}; "
            f"{count} finished; driver at most {peak:.0f} MB",
            flush=True,
        )
    check(storage, options.trials)
    for arguments in (("status", "load"), ("report", "load"), ("plan", file)):
        answer = drive_sweep(*arguments, "--storage", storage, timeout_s=600)
        print(f"{arguments[0]}: {answer.seconds:.1f} s", flush=True)


def start(*arguments: object, options: argparse.Namespace, log: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | noop_cli.environment(options.slots, **{SLEEP_S: options.sleep})
    command = noop_cli.command(*arguments, "--quiet")
    with log.open("wb") as output:
        return subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)


def kill(process: subprocess.Popen[bytes]) -> None:
    for pid in [process.pid, *descendants(process.pid)]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def has_reached(process: subprocess.Popen[bytes], storage: Path, count: int) -> bool:
    """Whether so many trials are finished, or the process has ended."""
    return finished(storage) >= count or process.poll() is not None


def finished(storage: Path) -> int:
    return sum(1 for _ in storage.glob("trials/*/result.json"))


def peak_mb(pid: int) -> float:
    """The most memory that the process has had; 0 if it is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    match = re.search(r"VmHWM:\s+(\d+) kB", text)
    return int(match[1]) / 1024 if match else 0.0


def write_ready(file: Path, root: Path, count: int) -> None:
    """The records of the first trials, as the stage that computes nothing writes them."""
    spec = load_spec(str(file), [f"storage={root}"])
    storage = open_storage(spec.storage, create=True)
    plan = make_plan(spec, storage, hash_data=True)
    settings = SweepSettings(
        folders=StageFolders(storage, None),
        data=StagedDataset(source=plan.source),
        runtime=Runtime(),
        share_warmups=False,
        checkpoint_seconds=60.0,
        metrics_seconds=0.0,
        provenance={"data_digest": plan.data_digest, "revision": "made beforehand", "sweep": "earlier"},
        progress_seconds=1.0,
    )
    for trial in plan.trials[:count]:
        stage = Stage(kind="trial", key=trial.key, name=trial.name, config=canonical(trial.config), attempt=1)
        points = MetricLog()
        for epoch in (1, 2, 3):
            points.record(epoch, {"train/loss": 1 / epoch, "val/accuracy": 1 - 1 / (epoch + 1)})
        costs = {"cost/search_seconds": 0.0, "cost/total_seconds": 0.0}
        points.record(3, {"test/accuracy": 0.5, "prune/sparsity": 0.9} | costs)
        publish_result(stage, settings, int(time.time() * 1000), points)


def check(storage: Path, trials: int) -> None:
    """MLflow has one ended run for each trial, and each point of the records once."""
    answer = json.loads(drive_sweep("status", "load", "--storage", storage, "--json", timeout_s=600).stdout)
    assert (answer["finished"], answer["total"]) == (trials, trials), (answer["finished"], answer["total"])
    with sqlite3.connect(f"file:{storage}/mlflow.db?mode=ro", uri=True) as store:
        states = Counter(status for (status,) in store.execute("SELECT status FROM runs"))
        keys = Counter(
            key
            for (key,) in store.execute(
                "SELECT keys.value FROM tags AS keys JOIN tags AS roles ON roles.run_uuid = keys.run_uuid"
                " WHERE keys.key = 'drive.trial_key' AND roles.key = 'drive.role' AND roles.value = 'trial'"
            )
        )
    assert states.keys() == {"FINISHED"}, states
    assert len(keys) == trials
    assert set(keys.values()) == {1}, "a second run of a trial"
    recorded, stored = Counter(recorded_points(storage)), Counter(stored_points(storage / "mlflow.db"))
    assert recorded == stored, f"{(recorded - stored).total()} points lost, {(stored - recorded).total()} too many"
    print(f"all {trials} finished, one run each, {stored.total()} points as recorded, nothing RUNNING", flush=True)


if __name__ == "__main__":
    main()
