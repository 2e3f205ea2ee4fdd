"""Processes that are killed or stopped: driver, worker, raylet, and the one that writes to MLflow."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial

from tests.chaos.faults.fault import Fault, Hit, Scene, Setting, certain
from tests.support.cli import command_line, descendants
from tests.support.ray_nodes import is_raylet

STAGE = "ray::ImplicitFunc"  # as Tune names its actors
WOKEN_AFTER_S = 4.0  # at most
FOR_EVER_S = 1000.0  # until the driver has ended


def _driver(scene: Scene) -> list[int]:
    return [scene.driver.pid] if scene.driver.poll() is None else []


def _writer(scene: Scene) -> list[int]:
    return [pid for pid in descendants(scene.driver.pid) if "orchestrator.tracking.process" in command_line(pid)]


def ray_processes(scene: Scene) -> Iterable[int]:
    """Of the driver's own Ray, or of the worker nodes of the cluster."""
    if scene.setting.ray == "local":
        return descendants(scene.driver.pid)
    return [pid for node in scene.ground.nodes() for pid in node.processes()]


def stage_workers(scene: Scene) -> list[int]:
    """The processes that run a stage now; Ray's own agents have such titles too."""
    return [pid for pid in ray_processes(scene) if command_line(pid).startswith(STAGE)]


def _raylets(scene: Scene) -> list[int]:
    return [pid for pid in ray_processes(scene) if is_raylet(pid)]


def _kill(targets: Callable[[Scene], list[int]], scene: Scene) -> Hit | None:
    pids = targets(scene)
    return certain if pids and _sent(signal.SIGKILL, scene.draw.choice(pids)) else None


def _stop(targets: Callable[[Scene], list[int]], patience_s: float | None, scene: Scene) -> Hit | None:
    """Stops a process. It is woken soon, or ended when the user's patience is at its end."""
    pids = targets(scene)
    if not pids:
        return None
    pid = scene.draw.choice(pids)
    if not _sent(signal.SIGSTOP, pid):
        return None
    if patience_s is None:
        scene.later(scene.draw.uniform(0.1, WOKEN_AFTER_S), partial(_sent, signal.SIGCONT, pid))
    else:
        scene.later(patience_s, partial(_sent, signal.SIGKILL, pid))
    return certain


def _sent(number: int, pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False


# With how long a user waits for one that has stopped before he kills it: nothing else would end a driver or a local raylet.
TARGETS: dict[str, tuple[Callable[[Scene], list[int]], float]] = {
    "driver": (_driver, 4.0),
    "worker": (stage_workers, FOR_EVER_S),
    "raylet": (_raylets, 30.0),
    "MLflow writer": (_writer, FOR_EVER_S),
}


def _faults() -> Iterable[Fault]:
    for name, (targets, patience_s) in TARGETS.items():
        yield Fault(name=f"kill {name}", inject=partial(_kill, targets), kills=True)
        yield Fault(name=f"stop {name}", inject=partial(_stop, targets, patience_s), kills=True)
        yield Fault(name=f"stop and wake {name}", inject=partial(_stop, targets, None))


def _all_of_ray_and_driver(scene: Scene) -> Hit | None:
    pids = [*_driver(scene), *descendants(scene.driver.pid)]
    return certain if [pid for pid in pids if _sent(signal.SIGKILL, pid)] else None


def _is_local(setting: Setting) -> bool:
    return setting.ray == "local"


PROCESSES = [
    *_faults(),
    Fault(name="kill driver and its Ray", inject=_all_of_ray_and_driver, fits=_is_local, kills=True),
]
