"""What lives as long as all rounds do: a Ray cluster, an MLflow server, an object store, and the clocks. Each starts when it is
first needed.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from orchestrator.tracking.client import TrackingTarget
from orchestrator.tracking.ui_server import serve
from tests.chaos.proxy import Mood, Proxy, proxy_of
from tests.chaos.sweep import TRIGGERS, write_sweep
from tests.support.ray_nodes import Node, RayNodes
from tests.support.s3_server import KEY, SECRET, ObjectStore, s3_server

HEALTH = {  # a node is dead after some ten seconds without an answer
    "RAY_health_check_period_ms": "2000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "3",
}
CLOCK = "CHAOS_CLOCK"  # a link whose target is by how many seconds the clock is wrong
# Every Python process imports this module when it starts.
SHIFTED_CLOCK = f"""\
import os, time

def shift():
    try:
        return int(os.readlink(os.environ[{CLOCK!r}]))
    except (KeyError, OSError):
        return 0

seconds, nanoseconds = time.time, time.time_ns
time.time = lambda: seconds() + shift()
time.time_ns = lambda: nanoseconds() + 1_000_000_000 * shift()
"""


@dataclass
class Clock:
    """The clock of all processes that were started with its environment."""

    link: Path

    @property
    def environment(self) -> dict[str, str]:
        return {CLOCK: str(self.link), "PYTHONPATH": str(self.link.parent)}

    def jump(self, seconds: int) -> None:
        """Makes it wrong by so much from now on."""
        fresh = self.link.with_suffix(".new")
        fresh.symlink_to(str(seconds))
        fresh.replace(self.link)


def write_clock(folder: Path, name: str) -> Clock:
    """A clock that is right so far; its files are below the folder."""
    modules = folder / "clocks"
    modules.mkdir(exist_ok=True)
    (modules / "sitecustomize.py").write_text(SHIFTED_CLOCK)
    return Clock(modules / name)


@dataclass
class Ground:
    """The surroundings of the rounds; a context manager.

    Attributes:
        folder: where everything is.
        file: the sweep file.
        triggers: a file in it asks the next worker for a fault of the user's module.
        clock: of the drivers and what they start.
        node_clock: of the cluster's nodes.
        node_count: how many nodes of one slot the cluster has; the sweep uses one at a time.
    """

    folder: Path
    node_count: int = 2
    _running: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        self.file = write_sweep(self.folder)
        self.triggers = self.folder / "triggers"
        self.triggers.mkdir()
        self.clock, self.node_clock = (write_clock(self.folder, name) for name in ("driver", "nodes"))
        self.environment = {
            TRIGGERS: str(self.triggers),
            "DRIVE_SWEEP_CACHE": str(self.folder / "cache"),
            "OMP_NUM_THREADS": "1",
            "PYTHONFAULTHANDLER": "1",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self._running.close()

    @cached_property
    def cluster(self) -> RayNodes:
        settings = self.environment | self.node_clock.environment | HEALTH
        nodes = self._running.enter_context(RayNodes(settings=settings, jobs_api=False))
        for _ in range(self.node_count):
            nodes.add(cpus=1, gpus=0)
        return nodes

    @cached_property
    def tracking(self) -> Proxy:
        """The door of an MLflow server."""
        folder = self.folder / "server"
        target = TrackingTarget(
            uri=f"sqlite:///{folder}/mlflow.db", experiment="unused", artifact_root=str(folder / "artifacts")
        )
        folder.mkdir()
        return self._running.enter_context(proxy_of(self._running.enter_context(serve(target, port=0))))

    @cached_property
    def objects(self) -> ObjectStore:
        return self._running.enter_context(s3_server(self.folder))

    @cached_property
    def store(self) -> Proxy:
        """The door of the object store."""
        return self._running.enter_context(proxy_of(self.objects.endpoint))

    def nodes(self) -> list[Node]:
        """The worker nodes that live; `ray start` does not notice a raylet that ends because an agent of it has ended."""
        return [node for node in self.cluster.workers if not node.ended() and node.has_raylet()]

    def repair(self) -> None:
        """As before the first round: right clocks, servers that answer, no trigger, live nodes."""
        for clock in (self.clock, self.node_clock):
            clock.jump(0)
        for name in ("tracking", "store"):
            if name in self.__dict__:
                self.__dict__[name].set(Mood.WELL)
        for trigger in self.triggers.iterdir():
            trigger.unlink()
        if "cluster" in self.__dict__:
            self.replace_lost_nodes()

    def replace_lost_nodes(self) -> None:
        """As a cluster does that scales itself: a new node joins for each that is gone."""
        alive = self.nodes()
        for node in self.cluster.workers:
            if node not in alive and not node.ended():
                node.kill()
        for _ in range(self.node_count - len(alive)):
            self.cluster.add(cpus=1, gpus=0)

    def driver_environment(self, scratch: Path) -> dict[str, str]:
        """Of a driver whose temporary files go into `scratch`."""
        return os.environ | self.environment | self.clock.environment | {"TMPDIR": str(scratch)}
