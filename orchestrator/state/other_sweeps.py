"""What other sweeps of a storage compute at the moment, so that a trial that several share is computed once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from orchestrator.state.driver_liveness import driver_alive
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.base import Storage

LOOK_INTERVAL_S = 15.0
RECENT_S = 600.0  # a live driver writes its state every 10 s; clocks of storages and hosts differ
STATE = "state.json"


@dataclass(kw_only=True)
class OtherSweeps:
    """The sweeps beside one of a storage.

    Attributes:
        sweep: the one that asks.
        clock: seconds that only grow.
    """

    storage: Storage
    sweep: str
    clock: Callable[[], float] = time.monotonic
    _looked: float | None = None
    _computing: dict[str, str] = field(default_factory=dict)  # key of a trial or warm-up -> sweep

    def computing(self, key: str) -> str:
        """The sweep that runs this trial or warm-up, as of the last LOOK_INTERVAL_S; empty if none does.

        Raises:
            StorageError: the storage cannot be used.
        """
        now = self.clock()
        if self._looked is None or now - self._looked >= LOOK_INTERVAL_S:
            self._computing = self._look()
            self._looked = now
        return self._computing.get(key, "")

    def _look(self) -> dict[str, str]:
        recent = time.time() - RECENT_S
        names = [
            path.split("/")[1]
            for path, info in self.storage.files("sweeps").items()
            if path.count("/") == 2 and path.endswith(f"/{STATE}") and info.modified > recent
        ]
        return {key: name for name in names if name != self.sweep for key in _running(SweepFolder(self.storage, name))}


def _running(folder: SweepFolder) -> list[str]:
    """Keys of the stages that a sweep runs; none if its driver is gone."""
    state = folder.read_state()
    if state is None or not driver_alive(state.driver):
        return []
    return [stage.key for stage in state.all_stages() if stage.state == "running"]
