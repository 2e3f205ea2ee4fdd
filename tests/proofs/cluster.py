"""The digits sweep on a head and three worker nodes, through the Jobs API with a token, compared with one machine.

    python -m tests.proofs.cluster [--workers 3]

A worker node has 2 CPUs, which are the slots, and 2 GPUs that do not exist, of which trials with `device: cpu` take none.
Shown at the end: every node trained, 50 trials finished, every model_sha256 and metric point equal to those of one machine,
one MLflow run a trial, nothing RUNNING.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.mlflow_client import TrackingTarget
from orchestrator.ui import serve
from tests.ray_nodes import RayNodes
from tests.sweeps import command_line, curves, digests, drive_sweep, start, status

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
            begun = time.monotonic()
            sweep.finish("submit", "digits", "--tracking-uri", tracking_uri)
            print(f"{options.workers} nodes: finished in {time.monotonic() - begun:.0f} s", flush=True)
            print(f"most trials at once by node: {dict(sweep.busiest)}")
            assert all(sweep.busiest[node.address] for node in cluster.workers), "a node was not used"
            sweep.check(alone)
            print(f"{TRIALS} digests and all metric points equal; one run a trial; nothing RUNNING")


@dataclass
class ClusterSweep:
    """The digits sweep in one storage, run by jobs of a cluster."""

    cluster: RayNodes
    storage: Path
    tracking_uri: str

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
        from mlflow import MlflowClient

        assert status("digits", self.storage)["finished"] == TRIALS
        assert digests("digits", self.storage) == digests("digits", alone), "a model differs"
        assert curves(self.storage) == curves(alone), "a metric point differs"
        client = MlflowClient(self.tracking_uri)
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        runs = list(client.search_runs(experiments, max_results=1000))
        assert {run.info.status for run in runs} == {"FINISHED"}, Counter(run.info.status for run in runs)
        assert sum(run.data.tags["drive.role"] == "trial" for run in runs) == TRIALS


if __name__ == "__main__":
    main()
