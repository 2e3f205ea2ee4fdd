"""Workers of a trial as Ray actors, in the placement group that Tune has reserved for the trial as a whole.

The group is granted with all its bundles or not at all, so trials that compete hold no parts that others wait for. Tune's own
actor, in the first bundle, owns the others: Ray ends them with it.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from trainables.errors import WorkerLostError
from trainables.runtime.stacks import stacks_on_signal
from trainables.worker.peers import LOST, Outcome, Part

START_S = 300.0  # for an actor to start; its bundle is reserved


class PeerActor:
    """One other worker."""

    def identity(self) -> dict[str, Any]:
        """Its process: "pid", "node", and the descriptor of its "stacks"."""
        return {"pid": os.getpid(), "node": node_id(), "stacks": stacks_on_signal()}

    def do(self, part: Part, rank: int, *arguments: Any) -> Outcome:
        return part(rank, *arguments)


class RayPeers:
    """The other workers of the trial whose actor this process is (Peers)."""

    def __init__(self, workers: int) -> None:
        import ray

        self.workers = workers
        self.address = ray.util.get_node_ip_address()
        self._actors: dict[int, Any] = {}
        self._calls: dict[Any, int] = {}
        self._outcomes: dict[int, Outcome] = {}

    def identities(self) -> list[dict[str, Any]]:
        """The processes of the others, by rank, started where they do not run.

        Raises:
            WorkerLostError: one does not start.
        """
        import ray

        for rank in range(1, self.workers):
            if rank not in self._actors:
                self._actors[rank] = self._start(rank)
        try:
            return list(ray.get([self._actors[rank].identity.remote() for rank in range(1, self.workers)], timeout=START_S))
        except (ray.exceptions.RayError, TimeoutError) as error:
            self.end()
            raise WorkerLostError(f"the {self.workers} workers of the trial could not be started: {error}") from error

    def begin(self, part: Part, *arguments: Any) -> None:
        self._outcomes = {}
        self.identities()
        self._calls = {self._actors[rank].do.remote(part, rank, *arguments): rank for rank in range(1, self.workers)}

    def poll(self, seconds: float) -> dict[int, Outcome]:
        import ray

        ready, _ = ray.wait(list(self._calls), timeout=seconds) if self._calls else ([], [])
        for call in ready:
            rank = self._calls.pop(call)
            try:
                self._outcomes[rank] = ray.get(call)
            except ray.exceptions.RayError:
                self._outcomes[rank] = LOST
        return dict(self._outcomes)

    def working(self) -> bool:
        return bool(self._calls)

    def end(self) -> None:
        import ray

        for rank in self._calls.values():
            self._outcomes.setdefault(rank, LOST)
        self._calls = {}
        for actor in self._actors.values():
            ray.kill(actor)
        self._actors = {}

    def _start(self, rank: int) -> Any:
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        group = ray.util.get_current_placement_group()
        bundle = group.bundle_specs[rank]
        actor = ray.remote(PeerActor).options(
            num_cpus=bundle.get("CPU", 0),
            num_gpus=bundle.get("GPU", 0),
            max_restarts=0,
            scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank),
        )
        return actor.remote()


def place_of_node() -> dict[str, str]:
    """Ray's id of this node and its address; empty in a process without Ray."""
    node = node_id()
    if not node:
        return {}
    import ray

    return {"node": node, "address": ray.util.get_node_ip_address()}


def node_id() -> str:
    """Ray's id of this node; empty in a process without Ray."""
    if "ray" not in sys.modules:
        return ""
    import ray

    if not ray.is_initialized():
        return ""
    return str(ray.get_runtime_context().get_node_id())
