"""What a fault is, and what it may touch."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.ground import Ground
from tests.chaos.records import Records

Hit = Callable[[], bool]  # asked when the round has ended: whether the fault met what it was meant for


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where a round takes place.

    Attributes:
        storage: "folder" or "s3".
        ray: "joined", the cluster of all rounds, or "local", a Ray of the driver's own.
        tracking: "server", or "database" inside a storage that is a folder.
    """

    storage: str
    ray: str
    tracking: str

    def __str__(self) -> str:
        return f"{self.storage}, {self.tracking}, {self.ray} Ray"


@dataclass
class Scene:
    """One round as its faults see it.

    Attributes:
        folder: of the round.
        driver: the process that runs the sweep now.
        damaged: names of files of the storage that a fault has damaged.
        asides: what the round's line says of faults, besides their names.
    """

    ground: Ground
    setting: Setting
    draw: random.Random
    folder: Path
    records: Records
    driver: subprocess.Popen[bytes]
    damaged: list[str] = field(default_factory=list)
    _later: list[tuple[float, Callable[[], object]]] = field(default_factory=list)

    def later(self, seconds: float, action: Callable[[], object]) -> None:
        """Has something done after so long, or when the driver has ended."""
        self._later.append((time.monotonic() + seconds, action))

    def do_what_is_due(self, *, all_of_it: bool = False) -> None:
        now = time.monotonic()
        due = [one for one in self._later if all_of_it or one[0] <= now]
        for one in due:
            self._later.remove(one)
            one[1]()


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A kind of fault.

    Attributes:
        inject: does it; None if what it is meant for is not there (yet), so that it is tried again.
        fits: where it can happen.
        kills: whether a process ends by it at any moment, such as in the middle of a write.
    """

    name: str
    inject: Callable[[Scene], Hit | None]
    fits: Callable[[Setting], bool] = lambda setting: True
    kills: bool = False


def certain() -> bool:
    """The `Hit` of a fault that was seen to hit."""
    return True
