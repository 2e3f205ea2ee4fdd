"""From `drive-sweep run digits` to the first training epoch, and where the time goes.

    python -m tests.benchmarks.startup [--repeat 3]

Each run is a process of its own on a fresh storage and is stopped after its first epoch. Times count from the start of the
process to the moment at which a milestone was reached.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from tests.benchmarks.summary import spread

BEGUN = "DRIVE_SWEEP_BEGUN"


def run_one(storage: Path) -> None:
    """Runs the sweep in this process with its milestones noted, prints them, and stops."""
    import orchestrator.execution.sweep
    from orchestrator.cli import main
    from orchestrator.execution.driver import Driver

    seconds: dict[str, float] = {}

    def note(milestone: str, at: float | None = None) -> None:
        seconds.setdefault(milestone, (at or time.time()) - float(os.environ[BEGUN]))

    note("program imported")
    sweep: Any = orchestrator.execution.sweep
    joined: Callable[..., AbstractContextManager[None]] = sweep.connect_to_cluster

    @contextmanager
    def noted_cluster(*arguments: Any) -> Any:
        with joined(*arguments):
            note("Ray is up")
            yield

    settings_of = sweep._settings

    def noted_settings(*arguments: Any) -> Any:
        note("Tune is imported, choices are made")
        return settings_of(*arguments)

    update_status = Driver.update_tracking_status

    def noted_tracking(driver: Driver) -> None:
        update_status(driver)
        if driver.tracking.experiment_id:
            note("MLflow is open (beside the rest)")

    on_report = Driver.on_report

    def noted_report(driver: Driver, entry: Any, report: dict[str, Any]) -> None:
        on_report(driver, entry, report)
        if report.get("event") == "begun":
            note("a worker has the first stage")
        epochs = [point for point in report.get("points", ()) if point["key"] == "train/loss"]
        if epochs and "first training epoch has ended" not in seconds:
            note("first training epoch has ended", epochs[0]["time"] / 1000)
            os.kill(os.getpid(), signal.SIGTERM)

    sweep.connect_to_cluster = noted_cluster
    sweep._settings = noted_settings
    setattr(Driver, "update_tracking_status", noted_tracking)  # noqa: B010
    setattr(Driver, "on_report", noted_report)  # noqa: B010
    sys.argv = ["drive-sweep", "run", "digits", "--storage", str(storage), "--quiet"]
    main()
    print(json.dumps(seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description="start-up of a sweep")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        run_one(options.one)
        return
    runs = []
    with tempfile.TemporaryDirectory(prefix="drive-sweep-startup-") as scratch:
        for turn in range(options.repeat):
            command = [sys.executable, "-m", "tests.benchmarks.startup", "--one", str(Path(scratch, str(turn)))]
            environment = os.environ | {BEGUN: str(time.time())}
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
    for milestone in runs[0]:
        print(f"{milestone:40s} {spread([run[milestone] for run in runs])} s")


if __name__ == "__main__":
    main()
