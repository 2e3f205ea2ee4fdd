"""The digits sweep on a head and three worker nodes, through the Jobs API with a token, compared with one machine.

    python -m tests.acceptance.cluster [--workers 3]

A worker node has 2 CPUs, which are the slots, and 2 GPUs that do not exist, of which trials with `device: cpu` take none.
Shown at the end: every node trained, 50 trials finished, every model_sha256 and metric point equal to those of one machine,
one MLflow run a trial, nothing RUNNING. Then the same in a fresh storage with a SIGTERM to the driver in mid-sweep, a `stop`
after it was submitted again, and `resume`: how long the driver takes to end, and that finished trials are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.tracking.client import TrackingTarget
from orchestrator.tracking.ui_server import serve
from tests.support.cli import command_line, curves, digests, drive_sweep, start, status, wait_for
from tests.support.ray_nodes import RayNodes

TRIALS = 50
TRAINS = "ray::ImplicitFunc"  # Ray's name for a process that runs stages of a sweep


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=3)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        alone = Path(scratch, "alone")
        answer = drive_sweep("run", "digits", "--storage", alone, "--quiet", timeout_s=3600)
        print(f"one machine: {status('digits', alone)['finished']} finished in {answer.seconds:.0f} s", flush=True)
        target = TrackingTarget(uri=f"sqlite:///{scratch}/mlflow.db", experiment="proof", artifact_root=f"{scratch}/artifacts")
        with serve(target, port=0) as tracking_uri, RayNodes(options.workers) as cluster:
            sweep = ClusterSweep(cluster, Path(scratch, "shared"), tracking_uri)
            started_at = time.monotonic()
            sweep.finish("submit", "digits", "--tracking-uri", tracking_uri)
            print(f"{options.workers} nodes: finished in {time.monotonic() - started_at:.0f} s", flush=True)
            print(f"most trials at once by node: {dict(sweep.busiest)}")
            assert all(sweep.busiest[node.address] for node in cluster.workers), "a node was not used"
            sweep.check(alone)
            print(f"{TRIALS} digests and all metric points equal; one run a trial; nothing RUNNING", flush=True)
            interrupted(ClusterSweep(cluster, Path(scratch, "interrupted"), tracking_uri, "interrupted"), alone)


def interrupted(sweep: ClusterSweep, alone: Path) -> None:
    """A sweep whose driver gets a SIGTERM, and whose job is stopped."""
    submit = "submit", "digits", "--name", sweep.name, "--tracking-uri", sweep.tracking_uri
    client = sweep.begin(*submit)
    wait_for(lambda: sweep.status()["finished"] >= 10, timeout_s=600)
    driver = int(json.loads((sweep.storage / "sweeps" / sweep.name / "state.json").read_text())["driver"]["pid"])
    started_at = time.monotonic()
    os.kill(driver, signal.SIGTERM)
    wait_for(lambda: not Path(f"/proc/{driver}/cmdline").exists() or not command_line(driver), timeout_s=60)
    seconds, states = time.monotonic() - started_at, sweep.run_states()
    output, _ = client.communicate(timeout=120)
    assert client.returncode == 143, output
    assert not states["RUNNING"], states
    print(
        f"SIGTERM at {sweep.status()['finished']} finished: driver ended in {seconds:.1f} s, client with 143; {dict(states)}",
        flush=True,
    )

    kept = sweep.results()
    client = sweep.begin(*submit)
    wait_for(lambda: sweep.status()["finished"] >= len(kept) + 10, timeout_s=600)
    started_at = time.monotonic()
    drive_sweep("stop", sweep.name, "--address", sweep.cluster.api, environment=sweep.cluster.environment)
    seconds, states = time.monotonic() - started_at, sweep.run_states()
    client.communicate(timeout=120)
    assert not states["RUNNING"], states
    print(f"stop at {sweep.status()['finished']} finished: the command took {seconds:.1f} s; {dict(states)}", flush=True)

    kept |= sweep.results()
    sweep.finish("resume", sweep.name)
    assert kept.items() <= sweep.results().items(), "a finished trial was touched"
    sweep.check(alone)
    print(f"resumed to the end: {len(kept)} finished trials kept, {TRIALS} digests and all metric points equal")


@dataclass
class ClusterSweep:
    """The digits sweep in one storage, run by jobs of a cluster."""

    cluster: RayNodes
    storage: Path
    tracking_uri: str
    name: str = "digits"

    def __post_init__(self) -> None:
        self.busiest: Counter[str] = Counter()  # address of a node -> most processes that trained there at once

    def begin(self, *command: object) -> subprocess.Popen[str]:
        """A client that waits for its job."""
        where = ("--storage", self.storage, "--address", self.cluster.api, "--wait")
        return start(*command, *where, environment=self.cluster.environment)

    def finish(self, *command: object, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Runs a command that waits for its job, to a good end; `meanwhile` is called about once a second."""
        client = self.begin(*command)
        while client.poll() is None:
            for node in self.cluster.workers:
                training = sum(command_line(pid).startswith(TRAINS) for pid in node.processes())
                self.busiest[node.address] = max(training, self.busiest[node.address])
            meanwhile()
            time.sleep(1)
        output, _ = client.communicate()
        assert client.returncode == 0, output

    def check(self, alone: Path) -> None:
        """All as on one machine, and MLflow holds each trial once."""
        assert self.status()["finished"] == TRIALS
        assert digests(self.name, self.storage) == digests("digits", alone), "a model differs"
        assert curves(self.storage) == curves(alone), "a metric point differs"
        assert self.run_states().keys() == {"FINISHED"}, self.run_states()
        assert sum(run.data.tags["drive.role"] == "trial" for run in self.runs()) == TRIALS

    def status(self) -> dict[str, Any]:
        started = (self.storage / "sweeps" / self.name / "state.json").exists()
        return status(self.name, self.storage) if started else {"finished": 0}

    def results(self) -> dict[Path, int]:
        """The records of finished trials, and when they were written."""
        return {file: file.stat().st_mtime_ns for file in self.storage.glob("trials/*/result.json")}

    def runs(self) -> list[Any]:
        from mlflow import MlflowClient

        client = MlflowClient(self.tracking_uri)
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        return list(client.search_runs(experiments, f"tags.`drive.sweep` = '{self.name}'", max_results=1000))

    def run_states(self) -> Counter[str]:
        return Counter(run.info.status for run in self.runs())


if __name__ == "__main__":
    main()
