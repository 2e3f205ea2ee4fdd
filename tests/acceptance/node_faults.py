"""The digits sweep on a cluster whose nodes are killed, frozen, cut off and added, each host a network namespace of its own.

    python -m tests.acceptance.node_faults        (as root: it makes namespaces and takes them away again)

The sweep is submitted through the Jobs API of a head that asks for a token; the client that submitted it is killed. Then one
node is killed with -9, a new one joins, one is frozen until Ray has given it up and woken, one is cut off until Ray has given
it up and its cable put back, so that for a while no worker node is left at all.
Shown: every trial finishes with the digest of a local run; what was finished at a fault is the same file to the end; nothing
is computed twice after it was finished; MLflow holds one finished run for each trial, and none that runs.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.tracking.client import TrackingTarget
from orchestrator.tracking.ui_server import serve
from tests.support.cli import curves, digests, drive_sweep, start, status, wait_for
from tests.support.mlflow_stores import Content
from tests.support.ray_nodes import Node, RayNodes

BRIDGE = "dsbridge"
HOSTS = 5  # the head, three workers, one that joins later
HEALTH = {  # dead after half a minute without an answer; the default takes a minute
    "RAY_health_check_period_ms": "3000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "4",
}
LONGER = ["--set", "training.epochs=30", "--set", "checkpoint_seconds=0"]  # so that faults meet trials that run


def main() -> None:
    if "--inside" not in sys.argv:
        with hosts():
            inside = [
                "ip",
                "netns",
                "exec",
                host(0),
                sys.executable,
                "-m",
                "tests.acceptance.node_faults",
                "--inside",
                str(os.getpid()),
            ]
            sys.exit(subprocess.run(inside, check=False).returncode)
    with tempfile.TemporaryDirectory(prefix="f") as scratch:
        root = Path(scratch)
        drive_sweep("run", "digits", *LONGER, "--storage", root / "local", "--quiet", timeout_s=3600)
        expected = digests("digits", root / "local")
        print(f"local run: {len(expected)} trials", flush=True)
        target = TrackingTarget(uri=f"sqlite:///{root}/mlflow.db", experiment="faults", artifact_root=str(root / "artifacts"))
        with serve(target, port=0) as uri, RayNodes(address=address(0), settings=HEALTH) as cluster:
            for number in (1, 2, 3):
                cluster.add(address=address(number), prefix=within(number))
            Faults(cluster, root / "shared", uri).run(expected, local=curves(root / "local"))


class Faults:
    """One sweep and what happens to it."""

    def __init__(self, cluster: RayNodes, storage: Path, tracking: str) -> None:
        self.cluster, self.storage, self.tracking = cluster, storage, tracking
        self.started_at = time.monotonic()
        self.kept: dict[Path, tuple[int, str]] = {}

    def run(self, expected: dict[str, str | None], local: dict[str, set[tuple[str, int, float]]]) -> None:
        first, second, third = self.cluster.workers
        client = self.submit()
        self.finished(2)
        client.kill()
        client.communicate()
        self.say("the client that submitted the sweep was killed")

        self.finished(5)
        first.kill()
        self.say("node 1 killed with -9")
        self.cluster.add(address=address(4), prefix=within(4))
        self.say("node 4 has joined")

        self.finished(12)
        second.freeze()
        self.until_dead(second, "node 2 frozen")
        second.thaw()
        self.until_ended(second, "node 2 woken")

        self.finished(20)
        fourth = self.cluster.workers[3]
        cable(3, "down")
        cable(4, "down")
        self.until_dead(third, "node 3 cut off")
        self.until_dead(fourth, "node 4 cut off")
        wait_for(lambda: "waiting" in self.log(), timeout_s=120)
        self.say(f"the sweep says: {next(line for line in self.log().splitlines() if 'waiting' in line)[20:]}")
        cable(3, "up")
        cable(4, "up")
        self.until_ended(third, "node 3 on the net again")
        self.until_ended(fourth, "node 4 on the net again")
        for number in (1, 2):
            self.cluster.add(address=address(number), prefix=within(number))
        self.say("nodes 1 and 2 started anew")

        wait_for(lambda: self.status()["finished"] == len(expected), timeout_s=3600, every_s=2)
        wait_for(lambda: not self.status()["driver_alive"], timeout_s=300, every_s=2)
        self.judge(expected, local)

    def judge(self, expected: dict[str, str | None], local: dict[str, set[tuple[str, int, float]]]) -> None:
        assert digests("digits", self.storage) == expected
        assert curves(self.storage) == local
        self.compare_kept()
        answer = self.status()
        assert (answer["failed"], answer["tracking_pending"]) == (0, 0), answer
        runs = Content(TrackingTarget(uri=self.tracking, experiment="drive-sweep", artifact_root=None)).runs
        keys = [(run.data.tags["drive.role"], run.data.tags.get("drive.trial_key", "")) for run in runs]
        assert len(keys) == len(set(keys)) == 53, f"{len(keys)} runs of {len(set(keys))} things"
        assert {run.info.status for run in runs} == {"FINISHED"}
        twice = [line for line in self.log().splitlines() if line.endswith(" finished")]
        assert len(twice) == len({line[20:] for line in twice}), "a trial finished twice"
        again = sum("will be tried again" in line for line in self.log().splitlines())
        self.say(
            f"all {len(expected)} trials finished with the digests and curves of the local run, {again} attempts were cut off; "
            f"{len(self.kept)} files that were finished at a fault are unchanged; 53 runs FINISHED in MLflow"
        )

    def submit(self) -> subprocess.Popen[str]:
        place = ["--storage", self.storage, "--tracking-uri", self.tracking, "--address", self.cluster.api]
        return start("submit", "digits", *LONGER, *place, "--wait", environment=self.cluster.environment)

    def finished(self, count: int) -> None:
        """Waits for so many finished trials, and notes what they left."""
        wait_for(lambda: self.status()["finished"] >= count, timeout_s=1800, every_s=1)
        self.compare_kept()
        for file in self.storage.glob("trials/*/result.json"):
            for one in (file, file.with_name("metrics.jsonl"), file.with_name("model.safetensors.zst")):
                self.kept.setdefault(one, facts(one))

    def compare_kept(self) -> None:
        changed = [str(file) for file, before in self.kept.items() if facts(file) != before]
        assert not changed, changed

    def until_dead(self, node: Node, what: str) -> None:
        started_at = time.monotonic()
        self.say(what)
        wait_for(lambda: not self.alive(node), timeout_s=300, every_s=1)
        self.say(f"{what}: Ray has given it up after {time.monotonic() - started_at:.0f} s")

    def until_ended(self, node: Node, what: str) -> None:
        wait_for(node.ended, timeout_s=120)
        node.close()
        self.say(f"{what}: its processes have ended")

    def alive(self, node: Node) -> bool:
        token = Path(self.cluster.environment["RAY_AUTH_TOKEN_PATH"]).read_text()
        request = urllib.request.Request(f"{self.cluster.api}/api/v0/nodes", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            nodes = json.load(answer)["data"]["result"]["result"]
        return any(one["node_ip"] == node.address and one["state"] == "ALIVE" for one in nodes)

    def status(self) -> dict[str, Any]:
        if not (self.storage / "sweeps" / "digits" / "state.json").exists():
            return {"finished": 0}
        return status("digits", self.storage)

    def log(self) -> str:
        return (self.storage / "sweeps" / "digits" / "sweep.log").read_text()

    def say(self, line: str) -> None:
        answer = self.status()
        print(f"{time.monotonic() - self.started_at:5.0f} s, {answer['finished']} finished: {line}", flush=True)


def facts(file: Path) -> tuple[int, str]:
    return file.stat().st_mtime_ns, hashlib.sha256(file.read_bytes()).hexdigest()


def host(number: int) -> str:
    return f"dshost{number}"


def address(number: int) -> str:
    return f"10.77.0.{10 + number}"


def within(number: int) -> tuple[str, ...]:
    return "ip", "netns", "exec", host(number)


def cable(number: int, state: str) -> None:
    """Cuts a host off, or puts its cable back: that is on the side of the process that made the hosts."""
    outside = f"--net=/proc/{sys.argv[-1]}/ns/net"
    subprocess.run(["nsenter", outside, "ip", "link", "set", f"dsveth{number}", state], check=True)


@contextmanager
def hosts() -> Iterator[None]:
    """Network namespaces on one bridge, as if they were machines on one switch."""
    undo: list[Callable[[], object]] = []
    try:
        ip("link", "add", BRIDGE, "type", "bridge")
        undo.append(lambda: ip("link", "del", BRIDGE))
        ip("link", "set", BRIDGE, "up")
        for number in range(HOSTS):
            ip("netns", "add", host(number))
            undo.append(lambda number=number: ip("netns", "del", host(number)))  # type: ignore[misc]
            ip("link", "add", f"dsveth{number}", "type", "veth", "peer", "name", "eth0", "netns", host(number))
            ip("link", "set", f"dsveth{number}", "master", BRIDGE, "up")
            ip("-n", host(number), "addr", "add", f"{address(number)}/24", "dev", "eth0")
            ip("-n", host(number), "link", "set", "eth0", "up")
            ip("-n", host(number), "link", "set", "lo", "up")
        yield
    finally:
        for action in reversed(undo):
            action()


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


if __name__ == "__main__":
    assert os.geteuid() == 0, "network namespaces take root"
    main()
