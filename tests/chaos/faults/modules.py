"""A user's module that fails once, hangs, ends its process, or prints garbage (sweep.py has it)."""

from __future__ import annotations

from functools import partial

from tests.chaos.faults.fault import Fault, Hit, Scene

KILLING = {"hang", "leave"}
KINDS = {"fail": "module fails", "hang": "module hangs", "leave": "module ends its process", "garbage": "module prints garbage"}


def _pull(name: str, scene: Scene) -> Hit | None:
    if scene.driver.poll() is not None:
        return None
    trigger = scene.ground.triggers / name
    trigger.touch()
    return lambda: not trigger.exists()


MODULES = [Fault(name=name, inject=partial(_pull, trigger), kills=trigger in KILLING) for trigger, name in KINDS.items()]
