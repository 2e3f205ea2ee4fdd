"""Folders below sweeps/ that are no whole sweep: half made, half deleted, half renamed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import count

from orchestrator.housekeeping.renaming import rename_sweep
from orchestrator.repair.mismatch import Mismatch, Scope
from orchestrator.state.driver_lease import LEASE_FILES
from orchestrator.state.sweep_folder import DELETING, RENAMED, SweepFolder
from orchestrator.storage.base import Storage


def half_made_sweeps(scope: Scope) -> Iterator[Mismatch]:
    """Folders without trials.json, but for empty ones."""
    folders = [SweepFolder(scope.storage, name) for name in scope.storage.names("sweeps") if name not in scope.running]
    half = {folder: files for folder in folders if not folder.exists() and (files := _files(folder))}
    former = {folder: name for folder in half if (name := _former_name(folder))}
    for folder, files in half.items():
        if folder in former:
            yield _half_renamed(folder, former[folder])
        elif folder.name not in former.values():
            yield _set_aside(folder, "half-deleted sweep" if DELETING in files else "half-made sweep", files)


def _files(folder: SweepFolder) -> set[str]:
    """Names of the files in a folder but for its lease and hidden ones."""
    names = {path.removeprefix(folder.file("")) for path in folder.storage.files(f"sweeps/{folder.name}")}
    return {name for name in names - {*LEASE_FILES} if not name.startswith(".")}


def _former_name(folder: SweepFolder) -> str:
    """The name of a sweep whose renaming to this folder was cut off; empty if there is none."""
    record = folder.storage.read_json(folder.file(RENAMED), fields=("from", "trials"))
    return str(record["from"]) if record else ""


def _half_renamed(folder: SweepFolder, former: str) -> Mismatch:
    return Mismatch(
        kind="half-renamed sweep",
        place=f"sweeps/{folder.name}, which was {former!r}",
        remedy="completes the renaming",
        mend=partial(rename_sweep, folder.storage, former, folder.name),  # takes the leases of both itself
    )


def _set_aside(folder: SweepFolder, kind: str, files: set[str]) -> Mismatch:
    return Mismatch(
        kind=kind,
        place=f"sweeps/{folder.name} has {', '.join(sorted(files))} and no trials.json",
        remedy="moves it to sweeps/.aside; its trials stay, and `run` with its sweep file makes it anew",
        mend=partial(move_aside, folder.storage, folder.name),
        sweeps=frozenset({folder.name}),
    )


def move_aside(storage: Storage, name: str) -> None:
    """Moves the folder of a sweep to sweeps/.aside."""
    targets = (f"sweeps/.aside/{name}-{number}" for number in count(1))
    storage.move_folder(f"sweeps/{name}", next(target for target in targets if not storage.names(target)))
