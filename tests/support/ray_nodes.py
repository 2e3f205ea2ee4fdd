"""A real Ray cluster on this machine: a head without slots, and worker nodes, each with a folder and an address of its own.

    with RayNodes(workers=2) as cluster:
        drive_sweep("submit", file, "--address", cluster.api, environment=cluster.environment)
        cluster.workers[1].kill()
        third = cluster.add()

The head has 0 CPUs and asks for a token; a worker node has 2 CPUs and 2 GPUs that do not exist, so trials with `device: cpu`
take its CPUs as slots. Nodes have the addresses 127.0.0.2, 127.0.0.3, ... Within network namespaces give the head and each node
that is added a `prefix` (`("ip", "netns", "exec", "h1")`) and an `address` there.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.support.cli import command_line, descendants

START_S = 120.0  # on a busy machine
UP = "Ray runtime started"
STORE_BYTES = 80_000_000
ASK = """
import sys, time, urllib.error, urllib.request
deadline = time.monotonic() + float(sys.argv[2])
while time.monotonic() < deadline:
    try:
        urllib.request.urlopen(sys.argv[1], timeout=5)
        break
    except urllib.error.HTTPError as error:  # it wants a token
        if error.code == 401:
            break
    except OSError:
        pass
    time.sleep(0.2)
else:
    sys.exit(1)
"""


@dataclass(frozen=True)
class Node:
    """One node: `ray start --block` and all that it started."""

    address: str
    process: subprocess.Popen[bytes]
    log: Path

    def wait_until_up(self) -> None:
        deadline = time.monotonic() + START_S
        while UP not in self.log.read_text():
            if self.ended() or time.monotonic() > deadline:
                raise AssertionError(f"the Ray node at {self.address} did not come up:\n{self.log.read_text()}")
            time.sleep(0.1)

    def processes(self) -> list[int]:
        """Process ids of the node: its session, and whatever began a session of its own below it."""
        session = [pid for pid in _all_processes() if _session(pid) == self.process.pid]
        below = [pid for parent in [self.process.pid, *session] for pid in descendants(parent)]
        return list(dict.fromkeys([*session, *below]))

    def has_raylet(self) -> bool:
        return any(map(is_raylet, self.processes()))

    def kill(self) -> None:
        """SIGKILL to all of the node, as if its power was cut."""
        while left := self.processes():
            _send(signal.SIGKILL, left)
            self.process.wait()

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def ended(self) -> bool:
        return self.process.poll() is not None

    def close(self) -> None:
        """Ends the node in an orderly way, and what is left of it by force."""
        everything = self.processes()
        self.thaw()
        if not self.ended():
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=10)
        _send(signal.SIGKILL, {*everything, *self.processes()})
        self.process.wait()

    def _signal(self, number: int) -> None:
        _send(number, self.processes())


class RayNodes:
    """The head, and its worker nodes; all end with the block.

    Attributes:
        nodes: the head and every node that was ever added.
        environment: what a client needs to be let in.
        api: URL of the Jobs API, on loopback of the head's network namespace.
        gcs: HOST:PORT for drivers that join the cluster directly.
    """

    def __init__(
        self,
        workers: int = 0,
        *,
        address: str = "127.0.0.2",
        prefix: Sequence[str] = (),
        settings: Mapping[str, str] | None = None,
        jobs_api: bool = True,
    ) -> None:
        """
        Args:
            workers: how many worker nodes to begin with, at addresses beside the head's.
            address: the head's own.
            prefix: command before `ray start` of the head, such as `ip netns exec h0`.
            settings: environment of every node, such as RAY_health_check_period_ms, which only the head heeds.
            jobs_api: whether the head has a dashboard with the Jobs API; without one it needs less time.
        """
        self.first_workers, self.address, self.prefix, self.settings = workers, address, prefix, settings or {}
        self.jobs_api = jobs_api
        self.nodes: list[Node] = []

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="r"))  # short: paths of sockets have at most 107 bytes
        token = self.folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        self.environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        port, dashboard_port, client_port = free_ports(3)
        self.gcs, self.api = f"{self.address}:{port}", f"http://127.0.0.1:{dashboard_port}"
        head = ["--head", f"--port={port}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard_port}"]
        head += [f"--ray-client-server-port={client_port}", f"--include-dashboard={self.jobs_api}"]
        try:
            self._start(self.address, self.prefix, 0, 0, head).wait_until_up()
            for _ in range(self.first_workers):
                self._add()
            for node in self.workers:
                node.wait_until_up()
            if self.jobs_api:
                asked = [*self.prefix, sys.executable, "-c", ASK, f"{self.api}/api/version", str(START_S)]
                subprocess.run(asked, check=True)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    @property
    def head(self) -> Node:
        return self.nodes[0]

    @property
    def workers(self) -> list[Node]:
        return self.nodes[1:]

    def add(self, *, cpus: int = 2, gpus: int = 2, address: str | None = None, prefix: Sequence[str] = ()) -> Node:
        """A new worker node that has joined; with the address of one that was killed, its replacement."""
        node = self._add(cpus=cpus, gpus=gpus, address=address, prefix=prefix)
        node.wait_until_up()
        return node

    def close(self) -> None:
        for node in reversed(self.nodes):
            node.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _add(self, *, cpus: int = 2, gpus: int = 2, address: str | None = None, prefix: Sequence[str] = ()) -> Node:
        address = address or f"127.0.0.{len(self.nodes) + 2}"
        return self._start(address, prefix, cpus, gpus, [f"--address={self.gcs}"])

    def _start(self, address: str, prefix: Sequence[str], cpus: int, gpus: int, role: Sequence[str]) -> Node:
        folder = self.folder / str(len(self.nodes))  # nodes that share one fight for sockets and for the code of jobs
        folder.mkdir()
        command = [*prefix, sys.executable, "-m", "ray.scripts.scripts", "start", *role, "--block", "--disable-usage-stats"]
        command += [f"--node-ip-address={address}", f"--temp-dir={folder}", f"--num-cpus={cpus}", f"--num-gpus={gpus}"]
        command += [f"--object-store-memory={STORE_BYTES}", "--min-worker-port=0", "--max-worker-port=0"]
        command += [f"--dashboard-agent-listen-port={free_ports(1)[0]}"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | self.environment
        environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}  # a job's `python` is looked up there
        environment |= {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0", **self.settings}
        log = folder / "ray-start.log"
        with open(log, "wb") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=folder, start_new_session=True
            )
        self.nodes.append(Node(address, process, log))
        return self.nodes[-1]


def is_raylet(pid: int) -> bool:
    return command_line(pid).partition(" ")[0].endswith("/raylet")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at, all different."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _all_processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _session(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[3])
    except OSError:
        return None


def _send(number: int, pids: set[int] | list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
