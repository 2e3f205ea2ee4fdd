"""Whether a storage has room for what a plan will write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from orchestrator.command_line import command
from orchestrator.errors import SetupError
from orchestrator.planning.estimate import read_records
from orchestrator.planning.plan import Plan
from orchestrator.planning.record_bytes import Written
from orchestrator.planning.written_bytes import WrittenBytes, written_bytes
from orchestrator.storage.base import Storage
from orchestrator.storage.free_space import FreeSpace, free_space
from trainables.wording import size_text


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """What a plan needs, and what is free.

    Attributes:
        needed: None where sizes are not known.
        free: None for an object store, or where the system does not say.
    """

    root: str
    needed: Written | None
    free: FreeSpace | None
    has_mlflow: bool = False

    @property
    def suffices(self) -> bool | None:
        """None where that is not known."""
        if self.needed is None or self.free is None:
            return None
        return self.needed.bytes <= self.free.bytes and (self.free.files is None or self.needed.files <= self.free.files)

    def require(self) -> None:
        """Raises SetupError, with the figures, if there is too little."""
        if self.suffices is not False:
            return
        assert self.needed is not None
        assert self.free is not None
        if self.needed.bytes > self.free.bytes:
            needed, free = f"about {size_text(self.needed.bytes)}", size_text(self.free.bytes)
        else:
            needed, free = f"about {self.needed.files:,} files", f"{self.free.files:,}"
        less = ", or keep no copies of the models in MLflow with tracking.models: none" if self.has_mlflow else ""
        raise SetupError(
            f"storage {self.root} must have room for what the sweep will write: {needed}, got {free} free",
            f"free space there (`{command('gc')}` shows what no sweep needs), give another --storage{less}",
            code="storage-too-small",
        )


def room_for(plan: Plan, written: WrittenBytes, storage: Storage) -> Room:
    """The room for what the unfinished trials of the plan will write; that of a search is not known before its end."""
    needed = written.needed if plan.settled else None
    has_mlflow = bool(written.mlflow and written.mlflow.bytes) and plan.spec.tracking.models == "all"
    folder = storage.folder
    return Room(root=storage.root, needed=needed, free=free_space(folder) if folder else None, has_mlflow=has_mlflow)


def require_room(plan: Plan, storage: Storage, selected: Callable[[str], bool] = lambda key: True) -> None:
    """Raises SetupError, with the figures, if the selected unfinished trials would not fit into the storage."""
    if storage.folder is None or not plan.settled:
        return
    chosen = tuple(trial for trial in plan.trials if trial.result is not None or selected(trial.key))
    known_models = read_records(plan, storage).mean_model_bytes
    written = written_bytes(replace(plan, trials=chosen), known_models, storage.folder)
    room_for(plan, written, storage).require()
