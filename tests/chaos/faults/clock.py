"""Clocks that jump by an hour: the driver's, and that of the nodes."""

from __future__ import annotations

from functools import partial

from tests.chaos.faults.fault import Fault, Hit, Scene, certain

HOUR_S = 3600


def _jump(whose: str, scene: Scene) -> Hit | None:
    if scene.driver.poll() is not None:
        return None
    clock = scene.ground.clock if whose == "driver" else scene.ground.node_clock
    clock.jump(scene.draw.choice((HOUR_S, -HOUR_S)))
    return certain


CLOCKS = [
    Fault(name="clock of driver jumps", inject=partial(_jump, "driver")),
    Fault(name="clock of nodes jumps", inject=partial(_jump, "nodes"), fits=lambda setting: setting.ray == "joined"),
]
