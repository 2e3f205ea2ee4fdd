"""What of the cluster a sweep can use, looked at again while it runs: nodes come, are lost, or cannot run its stages.

A node is named to the user by its address; Ray gives it a new id whenever it starts anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray

LOOK_S = 2.0
AVOIDED_S = 600.0  # then a node is tried again: what it lacked may have been mounted meanwhile
WAITING = 8  # for room, on a cluster that is not our own; an autoscaler adds nodes for stages that wait, one at a time for one
NO_ROOM = "no node of the cluster has room for a trial (resources in the sweep file); waiting for one that has"


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
    own: bool
    tell: Callable[[str], None]
    most: int | None = None
    slots: int = 0
    alive: frozenset[str] = frozenset()
    fitting: frozenset[str] = frozenset()
    home: str = field(default_factory=lambda: str(ray.get_runtime_context().get_node_id()))
    _avoided: dict[str, float] = field(default_factory=dict)  # node id -> monotonic time of the end
    _told: set[tuple[str, str]] = field(default_factory=set)
    _had_room: bool | None = None
    _looked: float = float("-inf")

    def look(self) -> None:
        """Counts anew, at most every two seconds; cheap enough to be called at every step."""
        now = time.monotonic()
        if now - self._looked < LOOK_S or (self.own and self._had_room):
            return
        self._looked = now
        self._avoided = {node: end for node, end in self._avoided.items() if end > now}
        nodes = alive_nodes()
        self.alive = frozenset(node["NodeID"] for node in nodes)
        rooms = {node["NodeID"]: slots_on(node, self.cpus, self.gpus) for node in nodes}
        self.fitting = frozenset(node for node, stages in rooms.items() if stages)
        self.slots = sum(stages for node, stages in rooms.items() if node not in self._avoided)
        if bool(self.slots) != self._had_room:
            self._tell_change(any(rooms.values()))
        self._had_room = bool(self.slots)

    def avoid(self, node: str, reason: str) -> None:
        """Lets no stage begin on a node for some time; each reason is told once."""
        self._avoided[node] = time.monotonic() + AVOIDED_S
        if (node, reason) not in self._told:
            self._told.add((node, reason))
            self.tell(f"node {address_of(node)} is left out for {AVOIDED_S / 60:.0f} minutes: {reason}")
        self._looked = float("-inf")
        self.look()

    def readmit(self, node: str) -> None:
        """Lets stages begin again on a node that was left out."""
        self._avoided.pop(node, None)
        self._looked = float("-inf")

    def avoided(self) -> list[str]:
        """Ids of the living nodes that stages must not begin on, sorted."""
        return sorted(self.alive & self._avoided.keys())

    @property
    def under_way(self) -> int:
        """How many stages may be with Tune: those that there is room for, and on a cluster those that an autoscaler has to see.

        For each one that waits for room Ray keeps a placement group; many of them slow it down.
        """
        if self.most is not None:
            return self.most
        return max(1, self.slots) if self.own else self.slots + WAITING

    def _tell_change(self, room_on_avoided: bool) -> None:
        if self.slots:
            if self._had_room is not None:
                self.tell(f"there is room for {self.slots} trials again; the sweep goes on")
        elif room_on_avoided:
            self.tell("every node that has room for a trial is left out; waiting for another one")
        elif self._had_room:
            self.tell("no node is left that has room for a trial; waiting for nodes to join, nothing is lost")
        else:
            self.tell(NO_ROOM)


def alive_nodes() -> list[dict[str, Any]]:
    """The cluster's nodes that are alive, as Ray describes them."""
    return [node for node in ray.nodes() if node["Alive"]]


def slots_on(node: dict[str, Any], cpus: float, gpus: float) -> int:
    """How many stages fit on a node at once."""
    there = node["Resources"]
    fits = [there.get("CPU", 0) / cpus] + ([there.get("GPU", 0) / gpus] if gpus else [])
    return int(min(fits) + 1e-9)  # shares such as 1/3 of a GPU


def address_of(node_id: str) -> str:
    """A node's address, for a person; its id if Ray knows it no longer."""
    return next((str(node["NodeManagerAddress"]) for node in ray.nodes() if node["NodeID"] == node_id), node_id)
