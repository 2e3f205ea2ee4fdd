"""What of the cluster a sweep can use, looked at again while it runs: nodes come, are lost, or cannot run its stages.

A node is named to the user by its address; Ray gives it a new id whenever it starts anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray

REFRESH_INTERVAL_S = 2.0
EXCLUSION_TIMEOUT_S = 600.0  # then a node is tried again: what it lacked may have been mounted meanwhile
PENDING_STAGES = (
    8  # for room, on a cluster that is not our own; an autoscaler adds nodes for stages that wait, one at a time for one
)
NO_CAPACITY = "no node of the cluster has room for a trial (resources in the sweep file); waiting for one that has"


@dataclass(kw_only=True)
class ClusterCapacity:
    """The nodes that are there, and how many stages fit on them.

    Attributes:
        own: the cluster is our own Ray on this machine, which never changes.
        tell: takes a line for the user when the last room is lost, when there is room again, and when a node is avoided.
        most: stages that may be with Tune at once, if the user limits them.
        slots: stages that fit at once on the nodes that are not avoided, as of the last look.
        alive: ids of the living nodes, as of the last look.
        fitting: ids of those that have room for a stage when nothing else runs there.
        home: id of the driver's own node.
    """

    cpus: float
    gpus: float
    local: bool
    notify: Callable[[str], None]
    max_concurrent: int | None = None
    slots: int = 0
    alive: frozenset[str] = frozenset()
    usable_nodes: frozenset[str] = frozenset()
    driver_node: str = field(default_factory=lambda: str(ray.get_runtime_context().get_node_id()))
    _excluded_until: dict[str, float] = field(default_factory=dict)  # node id -> monotonic time of the end
    _reported: set[tuple[str, str]] = field(default_factory=set)
    _had_room: bool | None = None
    _refreshed_at: float = float("-inf")

    def refresh(self) -> None:
        """Counts anew, at most every two seconds; cheap enough to be called at every step."""
        now = time.monotonic()
        if now - self._refreshed_at < REFRESH_INTERVAL_S or (self.local and self._had_room):
            return
        self._refreshed_at = now
        self._excluded_until = {node: end for node, end in self._excluded_until.items() if end > now}
        nodes = alive_nodes()
        self.alive = frozenset(node["NodeID"] for node in nodes)
        slots = {node["NodeID"]: slots_on(node, self.cpus, self.gpus) for node in nodes}
        self.usable_nodes = frozenset(node for node, stages in slots.items() if stages)
        self.slots = sum(stages for node, stages in slots.items() if node not in self._excluded_until)
        if bool(self.slots) != self._had_room:
            self._notify_change(any(slots.values()))
        self._had_room = bool(self.slots)

    def exclude_node(self, node: str, reason: str) -> None:
        """Lets no stage begin on a node for some time; each reason is told once."""
        self._excluded_until[node] = time.monotonic() + EXCLUSION_TIMEOUT_S
        if (node, reason) not in self._reported:
            self._reported.add((node, reason))
            self.notify(f"node {address_of(node)} is left out for {EXCLUSION_TIMEOUT_S / 60:.0f} minutes: {reason}")
        self._refreshed_at = float("-inf")
        self.refresh()

    def include_node(self, node: str) -> None:
        """Lets stages begin again on a node that was left out."""
        self._excluded_until.pop(node, None)
        self._refreshed_at = float("-inf")

    def excluded_nodes(self) -> list[str]:
        """Ids of the living nodes that stages must not begin on, sorted."""
        return sorted(self.alive & self._excluded_until.keys())

    @property
    def max_in_flight(self) -> int:
        """How many stages may be with Tune: those that there is room for, and on a cluster those that an autoscaler has to see.

        For each one that waits for room Ray keeps a placement group; many of them slow it down.
        """
        if self.max_concurrent is not None:
            return self.max_concurrent
        return max(1, self.slots) if self.local else self.slots + PENDING_STAGES

    def _notify_change(self, room_on_avoided: bool) -> None:
        if self.slots:
            if self._had_room is not None:
                self.notify(f"there is room for {self.slots} trials again; the sweep goes on")
        elif room_on_avoided:
            self.notify("every node that has room for a trial is left out; waiting for another one")
        elif self._had_room:
            self.notify("no node is left that has room for a trial; waiting for nodes to join, nothing is lost")
        else:
            self.notify(NO_CAPACITY)


def alive_nodes() -> list[dict[str, Any]]:
    """The cluster's nodes that are alive, as Ray describes them."""
    return [node for node in ray.nodes() if node["Alive"]]


def slots_on(node: dict[str, Any], cpus: float, gpus: float) -> int:
    """How many stages fit on a node at once."""
    resources = node["Resources"]
    fits = [resources.get("CPU", 0) / cpus] + ([resources.get("GPU", 0) / gpus] if gpus else [])
    return int(min(fits) + 1e-9)  # shares such as 1/3 of a GPU


def address_of(node_id: str) -> str:
    """A node's address, for a person; its id if Ray knows it no longer."""
    return next((str(node["NodeManagerAddress"]) for node in ray.nodes() if node["NodeID"] == node_id), node_id)
