"""The digits sweep as a Slurm job of two nodes: undisturbed, queued again from outside, stopped by the time limit, cancelled.

    python -m tests.acceptance.slurm [--only plain requeue limit cancel]

A Slurm of its own, one controller and two nodes on this machine, runs the script as users submit it. Shown in all cases: every
model_sha256 equal to a local run's, trials that had finished are not touched again, one MLflow run a trial and nothing RUNNING;
only `scancel` ends a job for good, and the next one continues. Needs root, slurm-wlm and munge.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests import ROOT
from tests.support.cli import digests, drive_sweep, wait_for

SCRIPT = ROOT / "cluster/slurm/sweep.sbatch"
SWEEP = ("digits", "--set", "search.seed=[0]", "--set", "training.epochs=60")
TRIALS = 25
CONFIGURATION = """\
ClusterName=proof
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=20
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=1,sched_interval=5
ReturnToService=2
SlurmdParameters=config_overrides
JobRequeue=1
KillWait=20
MinJobAge=3600
NodeName=node[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{last}] CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=all Nodes=node[1-2] Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True)
class Slurm:
    """A cluster of two nodes on this machine."""

    folder: Path

    def call(self, *words: object) -> str:
        environment = os.environ | {"SLURM_CONF": str(self.folder / "slurm.conf")}
        done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=True, env=environment)
        return done.stdout

    def submit(self, storage: Path, *options: str) -> int:
        """A job that runs the sweep, with nothing changed but what two nodes on one machine need."""
        exported = f"ALL,PROJECT_VENV={sys.prefix},NODE_ADDRESSES=127.0.0.2 127.0.0.3,OBJECT_STORE_BYTES=80000000"
        answer = self.call(
            *("sbatch", "--parsable", "--cpus-per-task=2", f"--export={exported}", f"--output={self.folder}/job.%j.out"),
            *(*options, SCRIPT, *SWEEP, "--storage", storage),
        )
        return int(answer)

    def job(self, number: int) -> dict[str, str]:
        words = self.call("scontrol", "show", "job", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def ended(self, number: int, timeout_s: float = 1500) -> dict[str, str]:
        wait_for(lambda: self.job(number)["JobState"] in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"), timeout_s, every_s=1)
        return self.job(number)

    def output(self, number: int) -> str:
        file = self.folder / f"job.{number}.out"
        return file.read_text() if file.exists() else ""


@contextmanager
def slurm() -> Iterator[Slurm]:
    """A controller, two nodes and their munge; ended with all jobs."""
    with tempfile.TemporaryDirectory(prefix="sl") as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)
        key = folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        first = free_ports(3)
        host = socket.gethostname().split(".")[0]
        text = CONFIGURATION.format(folder=folder, host=host, port=first, first=first + 1, last=first + 2)
        (folder / "slurm.conf").write_text(text)
        (folder / "state").mkdir()
        services: list[subprocess.Popen[bytes]] = []

        def serve(*words: str) -> None:
            environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
            log = (folder / "services.log").open("ab")
            services.append(subprocess.Popen(words, stdout=log, stderr=log, env=environment, start_new_session=True))

        cluster = Slurm(folder)
        try:
            files = [f"--{what}={folder}/munge.{end}" for what, end in (("key-file", "key"), ("socket", "sock"))]
            files += [f"--{what}={folder}/munged.{end}" for what, end in (("pid-file", "pid"), ("log-file", "log"))]
            serve("munged", "--foreground", "--force", "--num-threads=2", f"--seed-file={folder}/munged.seed", *files)
            wait_for(lambda: (folder / "munge.sock").exists(), 30)
            serve("slurmctld", "-D", "-i")
            for node in ("node1", "node2"):
                (folder / f"spool.{node}").mkdir()
                serve("slurmd", "-D", "-N", node)
            wait_for(lambda: up(cluster), 60, every_s=0.5)
            yield cluster
        finally:
            if up(cluster, "allocated"):
                cluster.call("scancel", "--state=RUNNING")
                wait_for(lambda: up(cluster), 60, every_s=0.5)
            for service in reversed(services):
                service.terminate()
                service.wait(timeout=60)


def up(cluster: Slurm, state: str = "idle") -> bool:
    """Whether both nodes answer and are in this state."""
    try:
        return cluster.call("sinfo", "--noheader", "--format=%T %D").split() == [state, "2"]
    except subprocess.CalledProcessError:
        return False


def free_ports(count: int) -> int:
    """The first of some free ports in a row."""
    for first in range(26800, 28800, count):
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise RuntimeError("no free ports")


def plain(cluster: Slurm, storage: Path) -> str:
    started_at = time.monotonic()
    job = cluster.ended(cluster.submit(storage))
    assert (job["JobState"], job["ExitCode"]) == ("COMPLETED", "0:0"), job
    return f"{time.monotonic() - started_at:.0f} s"


def requeue(cluster: Slurm, storage: Path) -> str:
    """What an administrator or a preemption does."""
    number = cluster.submit(storage)
    kept = after_some(storage)
    cluster.call("scontrol", "requeue", number)
    job = cluster.ended(number)
    assert (job["JobState"], job["ExitCode"], job["Restarts"]) == ("COMPLETED", "0:0", "1"), job
    return untouched(storage, kept)


def limit(cluster: Slurm, storage: Path) -> str:
    """The limit is lowered in mid-run, so that the signal, which comes 90 to 150 s before it, is due."""
    number = cluster.submit(storage, "--time=60", "--signal=B:TERM@90")
    after_some(storage)
    hours, minutes, _ = map(int, cluster.job(number)["RunTime"].split(":"))
    started_at = time.monotonic()
    cluster.call("scontrol", "update", f"JobId={number}", f"TimeLimit={60 * hours + minutes + 2}")
    wait_for(lambda: "queueing again" in cluster.output(number), 180, every_s=0.5)
    kept, outcome = finished(storage), f"queued itself again after {time.monotonic() - started_at:.0f} s"
    cluster.call("scontrol", "update", f"JobId={number}", "TimeLimit=60")
    job = cluster.ended(number)
    assert (job["JobState"], job["ExitCode"], job["Restarts"]) == ("COMPLETED", "0:0", "1"), job
    return f"{outcome}, {untouched(storage, kept)}"


def cancel(cluster: Slurm, storage: Path) -> str:
    """`scancel` must not be answered by queueing again."""
    number = cluster.submit(storage)
    kept = after_some(storage)
    cluster.call("scancel", number)
    job = cluster.ended(number)
    time.sleep(5)
    assert cluster.job(number)["JobState"] == "CANCELLED", job
    assert "queueing again" not in cluster.output(number)
    plain(cluster, storage)
    return untouched(storage, kept)


def finished(storage: Path) -> dict[str, int]:
    """Trial folder -> when its result was written."""
    return {file.parent.name: file.stat().st_mtime_ns for file in storage.glob("trials/*/result.json")}


def after_some(storage: Path, count: int = 6) -> dict[str, int]:
    wait_for(lambda: len(finished(storage)) >= count, 600)
    return finished(storage)


def untouched(storage: Path, kept: dict[str, int]) -> str:
    now = finished(storage)
    assert all(now.get(key) == written for key, written in kept.items()), "a finished trial was run again"
    assert len(now) == TRIALS, len(now)
    return f"{len(kept)} trials had finished and were kept"


def check_mlflow(storage: Path) -> None:
    """One run a trial, none of them or of the sweep RUNNING."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{storage}/mlflow.db")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = list(client.search_runs(experiments, max_results=1000))
    assert Counter(run.info.status for run in runs) == {"FINISHED": len(runs)}, Counter(run.info.status for run in runs)
    trials = [run.data.tags["drive.trial_key"] for run in runs if run.data.tags["drive.role"] == "trial"]
    assert len(trials) == len(set(trials)) == TRIALS, "a second run of a trial, or one missing"


CASES: dict[str, Callable[[Slurm, Path], str]] = {"plain": plain, "requeue": requeue, "limit": limit, "cancel": cancel}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=CASES, nargs="+", default=list(CASES))
    options = parser.parse_args()
    missing = [program for program in ("slurmctld", "slurmd", "munged") if not shutil.which(program)]
    if missing or os.geteuid() != 0:
        sys.exit(f"needs root, slurm-wlm and munge; missing: {', '.join(missing) or 'root'}")

    with tempfile.TemporaryDirectory() as scratch, slurm() as cluster:
        local = Path(scratch, "local")
        answer = drive_sweep("run", *SWEEP, "--storage", local, "--quiet", timeout_s=1800)
        print(f"without Slurm: {answer.seconds:.0f} s", flush=True)
        for name in options.only:
            storage = Path(scratch, name)
            try:
                outcome = CASES[name](cluster, storage)
            except AssertionError:
                for file in sorted(cluster.folder.glob("job.*.out")):
                    print(f"--- {file.name}\n{file.read_text()}", file=sys.stderr)
                raise
            assert digests("digits", storage) == digests("digits", local), "a model differs"
            check_mlflow(storage)
            print(f"{name}: {outcome}; all models equal, nothing RUNNING", flush=True)


if __name__ == "__main__":
    main()
