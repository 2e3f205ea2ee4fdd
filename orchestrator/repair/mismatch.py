"""A mismatch between the files of a storage, its sweeps and MLflow, and what a repair compares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

from orchestrator.state.sweep_folder import SweepFolder, sweep_names
from orchestrator.state.used_keys import held_sweeps, named_keys
from orchestrator.storage.base import Storage
from orchestrator.storage.layout import ASIDE, set_aside


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """One mismatch.

    Attributes:
        kind: such as "damaged record".
        place: where it is, and what is wrong there.
        remedy: what a repair does about it, such as "archives the trial"; what a person can do where there is no `mend`.
        mend: does that; None where only a person can.
        sweeps: sweeps that must not run meanwhile.
        afterwards: done once after all mends that share it.
    """

    kind: str
    place: str
    remedy: str
    mend: Callable[[], object] | None
    sweeps: frozenset[str] = frozenset()
    afterwards: Callable[[], object] | None = None


def sweep_file_to_move(folder: SweepFolder, name: str, kind: str, what: str = "") -> Mismatch:
    """The mismatch of a file of a sweep's that a repair moves to sweeps/.aside; `what` says what the file is."""
    path = folder.file(name)
    return Mismatch(
        kind=kind,
        place=path + what,
        remedy=f"moves it to sweeps/{ASIDE}",
        mend=partial(set_aside, folder.storage, path),
        sweeps=frozenset({folder.name}),
    )


@dataclass(frozen=True)
class Scope:
    """What is compared: all of a storage but what sweeps that run use.

    Attributes:
        running: sweep -> who holds it, in words; those that the caller holds are not among them.
        thorough: read what takes long to fetch from an object store: models, checkpoints and snapshots.
    """

    storage: Storage
    running: Mapping[str, str]
    thorough: bool

    @classmethod
    def of(cls, storage: Storage, *, thorough: bool, held: frozenset[str] = frozenset()) -> Scope:
        """The scope as it is now; the caller holds the leases of the sweeps in `held`."""
        running = {name: holder for name, holder in held_sweeps(storage).items() if name not in held}
        return cls(storage, running, thorough or storage.folder is not None)

    @cached_property
    def users(self) -> dict[str, frozenset[str]]:
        """Key of a trial or warm-up -> the sweeps that use it."""
        users: dict[str, set[str]] = {}
        for name in self.storage.names("sweeps"):
            for key in named_keys(SweepFolder(self.storage, name)):
                users.setdefault(key, set()).add(name)
        return {key: frozenset(names) for key, names in users.items()}

    def sweeps(self) -> list[SweepFolder]:
        """The whole sweeps that do not run."""
        return [SweepFolder(self.storage, name) for name in sweep_names(self.storage) if name not in self.running]

    def is_free(self, key: str) -> bool:
        """Whether no sweep that runs uses the trial or warm-up."""
        return not self.users_of(key) & self.running.keys()

    def users_of(self, key: str) -> frozenset[str]:
        return self.users.get(key, frozenset())

    def trials(self) -> list[str]:
        """Keys of the trial folders that no running sweep uses."""
        return [key for key in self.storage.names("trials") if self.is_free(key)]

    def warmups(self) -> list[str]:
        """Keys of the warm-ups that no running sweep uses."""
        return [key for key in self.storage.names("warmups") if self.is_free(key)]
