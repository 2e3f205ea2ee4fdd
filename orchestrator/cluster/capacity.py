"""The capacity of the cluster for a sweep, refreshed while it runs: nodes join, are lost, or cannot run its stages.

Messages name a node by its address, since Ray gives it a new id at each start.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import ray

REFRESH_INTERVAL_S = 2.0
EXCLUSION_TIMEOUT_S = 600.0  # then a node is tried again: what it lacked may have been mounted
# Stages kept pending on a remote cluster, so that its autoscaler sees demand. With one it would add one node at a time.
PENDING_STAGES = 8
NO_CAPACITY = "no node of the cluster has room for a trial (resources in the sweep file); waiting for one that has"
NO_CAPACITY_FOR_WORKERS = "the nodes of the cluster have no room for all {} workers of a trial (resources in the sweep file); "


@dataclass(kw_only=True)
class ClusterCapacity:
    """The nodes of the cluster, and how many stages fit on them.

    Attributes:
        cpus, gpus: of one worker of a stage.
        workers: of a stage, together on one node or on several.
        local: the cluster is a local Ray, which never changes.
        notify: called with a line for the user when there is no room, when there is room again, and when a node is excluded.
        max_concurrent: the user's limit of stages that run at once, if any.
        slots: stages that fit at once on the nodes that are not excluded.
        alive: ids of the nodes that are alive.
        usable_nodes: ids of those that have room for a worker when nothing else runs there.
        room: node id -> how many workers fit there when nothing else runs there.
        driver_node: id of the driver's node.
    """

    cpus: float
    gpus: float
    local: bool
    notify: Callable[[str], None]
    max_concurrent: int | None = None
    workers: int = 1
    slots: int = 0
    alive: frozenset[str] = frozenset()
    room: dict[str, int] = field(default_factory=dict)
    driver_node: str = field(default_factory=lambda: str(ray.get_runtime_context().get_node_id()))
    _excluded_until: dict[str, float] = field(default_factory=dict)  # node id -> monotonic time of the end
    _reported: set[tuple[str, str]] = field(default_factory=set)
    _had_room: bool | None = None
    _refreshed_at: float = float("-inf")

    def refresh(self) -> None:
        """Counts again if the last count is older than REFRESH_INTERVAL_S, so it may be called at every step."""
        now = time.monotonic()
        if now - self._refreshed_at < REFRESH_INTERVAL_S or (self.local and self._had_room):
            return
        self._refreshed_at = now
        self._excluded_until = {node: end for node, end in self._excluded_until.items() if end > now}
        nodes = alive_nodes()
        self.alive = frozenset(node["NodeID"] for node in nodes)
        self.room = {node["NodeID"]: workers_on(node, self.cpus, self.gpus) for node in nodes}
        self.slots = self.slots_on(self.alive - self._excluded_until.keys())
        if bool(self.slots) != self._had_room:
            self._notify_change(self.slots_on(self.alive) > 0)
        self._had_room = bool(self.slots)

    def exclude_node(self, node: str, reason: str) -> None:
        """Keeps stages off a node for EXCLUSION_TIMEOUT_S; reports each reason once."""
        self._excluded_until[node] = time.monotonic() + EXCLUSION_TIMEOUT_S
        if (node, reason) not in self._reported:
            self._reported.add((node, reason))
            self.notify(f"node {address_of(node)} is excluded for {EXCLUSION_TIMEOUT_S / 60:.0f} minutes: {reason}")
        self._refreshed_at = float("-inf")
        self.refresh()

    def include_node(self, node: str) -> None:
        """Lets stages start on an excluded node again."""
        self._excluded_until.pop(node, None)
        self._refreshed_at = float("-inf")

    def excluded_nodes(self) -> list[str]:
        """Sorted ids of the nodes that are alive and must not start stages."""
        return sorted(self.alive & self._excluded_until.keys())

    @property
    def usable_nodes(self) -> frozenset[str]:
        return frozenset(node for node, workers in self.room.items() if workers)

    def slots_on(self, nodes: Iterable[str]) -> int:
        """How many stages fit on these nodes at once, when nothing else runs there."""
        return sum(self.room.get(node, 0) for node in nodes) // self.workers

    @property
    def max_in_flight(self) -> int:
        """How many stages Tune may have: those that fit, and on a remote cluster PENDING_STAGES more.

        Not all of them, since many pending placement groups slow Ray down.
        """
        if self.max_concurrent is not None:
            return self.max_concurrent
        return max(1, self.slots) if self.local else self.slots + PENDING_STAGES

    def _notify_change(self, room_on_excluded: bool) -> None:
        if self.slots:
            if self._had_room is not None:
                self.notify(f"there is room for {self.slots} trials again; the sweep continues")
        elif room_on_excluded:
            self.notify("every node with room for a trial is excluded; waiting for another one")
        elif self._had_room:
            self.notify("no node is left that has room for a trial; waiting for nodes to join, nothing is lost")
        else:
            self.notify(NO_CAPACITY if self.workers == 1 else f"{NO_CAPACITY_FOR_WORKERS.format(self.workers)}waiting for more")


def alive_nodes() -> list[dict[str, Any]]:
    """The nodes that are alive, as Ray describes them."""
    return [node for node in ray.nodes() if node["Alive"]]


def workers_on(node: dict[str, Any], cpus: float, gpus: float) -> int:
    """How many workers fit on a node at once."""
    resources = node["Resources"]
    fits = [resources.get("CPU", 0) / cpus] + ([resources.get("GPU", 0) / gpus] if gpus else [])
    return int(min(fits) + 1e-9)  # shares such as 1/3 of a GPU


def address_of(node_id: str) -> str:
    """The address of a node; its id if Ray no longer knows it."""
    return next((str(node["NodeManagerAddress"]) for node in ray.nodes() if node["NodeID"] == node_id), node_id)
