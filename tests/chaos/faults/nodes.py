"""A node of the cluster that is lost: all of its processes at once, as if its power was cut."""

from __future__ import annotations

from tests.chaos.faults.fault import Fault, Hit, Scene, certain
from tests.chaos.faults.processes import stage_workers


def _lose_node(scene: Scene) -> Hit | None:
    """The node that works."""
    busy = set(stage_workers(scene))
    for node in scene.ground.nodes():
        if busy.intersection(node.processes()):
            node.kill()
            return certain
    return None


NODES = [Fault(name="lost node", inject=_lose_node, fits=lambda setting: setting.ray == "joined", kills=True)]
