"""What no sweep of a storage needs any more: found, and removed.

    snapshots        of a shared warm-up whose trials are all finished, in every sweep that names it; its metric points stay
    checkpoints      of finished trials, left by an interruption
    own warm-ups     of finished trials, left by an interruption
    unfinished files of writers that are gone, and reserves of drivers that are gone
    archives         in the folders .aside of trials, warm-ups and sweeps, if asked for
    unused trials    whose keys no sweep names, if asked for: they are results, and another sweep may want them

Kept: what a running sweep names; the warm-ups that a search names until it has ended; and, while a search runs or it is not
known what a sweep uses, all warm-ups and unused trials. MLflow's files are not touched, and neither is data/, which is small.

A removal that is interrupted leaves nothing damaged, and is completed by the next one.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.housekeeping.sweep_uses import SweepUse, sweep_uses
from orchestrator.state.driver_lease import LEASE_TIMES, LeaseTimes
from orchestrator.state.gc_lease import gc_lease
from orchestrator.state.sweep_folder import RESERVE
from orchestrator.state.trial_results import read_results
from orchestrator.state.warmup_points import replace_snapshots, warmup_points
from orchestrator.storage.base import FileInfo, Storage
from orchestrator.storage.layout import ASIDE, SNAPSHOT_NAME, trial_file
from trainables.records.file_names import CHECKPOINT, RESULT
from trainables.records.metrics import DamagedRecordError
from trainables.wording import counted

PARTIAL = re.compile(r"\..+\.\d+-\d+\.partial")  # as runtime/files.py names them
FOLDERS = ("trials", "warmups", "sweeps", "data")
HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
SNAPSHOTS, CHECKPOINTS, OWN_WARMUPS = (
    "snapshots of warm-ups",
    "checkpoints of finished trials",
    "own warm-ups of finished trials",
)
PARTIALS, ARCHIVES, UNUSED = "unfinished files", "archived trials", "trials of no sweep"

Files = Mapping[str, FileInfo]


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """What would be freed, and what stays though it looks unused.

    Attributes:
        files: kind, in words -> path -> what is known of the file.
        kept: why something stays, a sentence each.
    """

    files: Mapping[str, Files]
    kept: Sequence[str]

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Kind -> number of files and bytes."""
        return {kind: (len(files), sum(one.bytes for one in files.values())) for kind, files in self.files.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What the user lets go besides what every sweep can spare."""

    archives: bool = False
    unused_trials: bool = False


def find_garbage(storage: Storage, options: Options) -> Garbage:
    """What could be freed now.

    Raises:
        SetupError: a sweep is about to begin, or its records are being changed.
    """
    return _Search(storage, sweep_uses(storage), options, time.time()).garbage()


def free_garbage(storage: Storage, options: Options, times: LeaseTimes = LEASE_TIMES) -> Garbage:
    """Frees it while no sweep can begin, and returns what was freed.

    Raises:
        SetupError: a sweep is about to begin, or its records are being changed, or another gc runs.
    """
    find_garbage(storage, options)  # refuses before a lease is taken
    with gc_lease(storage, times):
        garbage = find_garbage(storage, options)
        for kind, files in garbage.files.items():
            REMOVALS.get(kind, _remove_files)(storage, files)
    return garbage


class _Search:
    """Looks for garbage in one listing of the storage."""

    def __init__(self, storage: Storage, uses: Sequence[SweepUse], options: Options, now: float) -> None:
        self.storage = storage
        self.uses = uses
        self.options = options
        self.now = now
        self.listed = {folder: _inside(storage.files(folder)) for folder in FOLDERS}
        self.named = frozenset().union(*(use.named for use in uses))
        self.running = frozenset().union(*(use.named for use in uses if use.running))
        self.kept: list[str] = []
        self.finished: dict[str, bool] = {}

    def garbage(self) -> Garbage:
        doubts = [f"sweep {use.name!r}: {use.unknown}" for use in self.uses if use.unknown]
        doubts += [f"sweep {use.name!r} is a search that is running" for use in self.uses if use.running and use.grows]
        files = {
            SNAPSHOTS: {} if doubts else self._snapshots(),
            CHECKPOINTS: self._of_finished(lambda rest: rest == CHECKPOINT),
            OWN_WARMUPS: self._of_finished(lambda rest: rest.startswith("warmup/")),
            PARTIALS: self._partials(),
            ARCHIVES: self._archives() if self.options.archives else {},
            UNUSED: self._unused() if self.options.unused_trials and not doubts else {},
        }
        self.kept += [f"all warm-ups and trials of no sweep: {doubt}" for doubt in doubts]
        return Garbage(files={kind: found for kind, found in files.items() if found}, kept=self.kept)

    def _snapshots(self) -> Files:
        snapshots: dict[str, dict[str, FileInfo]] = {}
        for path, info in self.listed["warmups"].items():
            _, key, name = path.split("/", 2)
            if SNAPSHOT_NAME.fullmatch(name):
                snapshots.setdefault(key, {})[path] = info
        self._read({trial for use in self.uses for key in snapshots for trial in use.sharers.get(key, ())})
        freed: dict[str, FileInfo] = {}
        reasons: dict[str, int] = {}
        for key, files in snapshots.items():
            if reason := self._wanted(key):
                reasons[reason] = reasons.get(reason, 0) + 1
            else:
                freed |= files
        self.kept += [f"{counted(count, 'warm-up')}: {reason}" for reason, count in reasons.items()]
        return freed

    def _wanted(self, warmup: str) -> str:
        """Why the snapshots of a warm-up stay, in words; empty if no sweep wants them."""
        for use in self.uses:
            if warmup in use.named:
                if use.running:
                    return f"sweep {use.name!r} is running"
                if use.grows:
                    return f"sweep {use.name!r} {use.grows}"
                if warmup not in use.sharers:
                    return f"sweep {use.name!r} does not say which trials it has"
                if not all(self.finished[trial] for trial in use.sharers[warmup]):
                    return f"sweep {use.name!r} has trials that are not finished"
        try:
            warmup_points(self.storage, warmup)
        except DamagedRecordError as error:
            return f"warmups/{warmup}/{error}"
        return ""

    def _of_finished(self, is_leftover: Callable[[str], bool]) -> Files:
        """Files in the folders of finished trials, without those of running sweeps."""
        found = {}
        for path, info in self.listed["trials"].items():
            _, key, rest = path.split("/", 2)
            if key not in self.running and not key.startswith(".") and is_leftover(rest):
                found[path] = info
        self._read({path.split("/")[1] for path in found})
        return {path: info for path, info in found.items() if self.finished[path.split("/")[1]]}

    def _partials(self) -> Files:
        """What writers and drivers have left that are gone: an hour after the last change no writer is at work."""
        idle = {f"sweeps/{use.name}/{RESERVE}" for use in self.uses if not use.running}
        stale = {
            path: info
            for files in self.listed.values()
            for path, info in files.items()
            if PARTIAL.fullmatch(path.rpartition("/")[2]) and self.now - info.modified > HOUR_S
        }
        reserves = {path: info for path, info in self.listed["sweeps"].items() if path in idle}
        return {path: info for path, info in (stale | reserves).items() if not _is_archived(path)}

    def _archives(self) -> Files:
        return {path: info for files in self.listed.values() for path, info in files.items() if _is_archived(path)}

    def _unused(self) -> Files:
        """The trials that no sweep names; the command `trial` may be at one that changed within a day."""
        folders: dict[str, dict[str, FileInfo]] = {}
        for path, info in self.listed["trials"].items():
            if not _is_archived(path):
                folders.setdefault(path.split("/")[1], {})[path] = info
        unused = {key: files for key, files in folders.items() if key not in self.named}
        recent = {key for key, files in unused.items() if self.now - max(one.modified for one in files.values()) < DAY_S}
        if recent:
            self.kept.append(f"{counted(len(recent), 'trial')} of no sweep: changed within a day")
        return {path: info for key in unused.keys() - recent for path, info in unused[key].items()}

    def _read(self, keys: Collection[str]) -> None:
        """Looks up which of these trials have a whole result."""
        new = sorted(set(keys) - self.finished.keys())
        results, _ = read_results(self.storage, new)
        self.finished |= {key: key in results for key in new}


def _inside(files: Files) -> Files:
    """Without what somebody has put beside the folders of trials, warm-ups and sweeps."""
    return {path: info for path, info in files.items() if path.count("/") > 1 or path.startswith("data/")}


def _is_archived(path: str) -> bool:
    return path.split("/")[1] == ASIDE


def _remove_files(storage: Storage, files: Files) -> None:
    for path in files:
        storage.remove(path)


def _remove_snapshots(storage: Storage, files: Files) -> None:
    """Keeps the points of each warm-up, from which MLflow may be made again."""
    for folder in _folders(files, depth=2):
        replace_snapshots(storage, folder.rpartition("/")[2])


def _remove_archives(storage: Storage, files: Files) -> None:
    for folder in _folders(files, depth=3):
        storage.remove_folder(folder)


def _remove_trials(storage: Storage, files: Files) -> None:
    """Each trial's result first, so that no part of a trial looks finished."""
    for folder in _folders(files, depth=2):
        storage.remove(trial_file(folder.rpartition("/")[2], RESULT))
        storage.remove_folder(folder)


def _folders(files: Files, depth: int) -> Iterator[str]:
    yield from sorted({"/".join(path.split("/")[:depth]) for path in files})


REMOVALS: dict[str, Callable[[Storage, Files], None]] = {
    SNAPSHOTS: _remove_snapshots,
    ARCHIVES: _remove_archives,
    UNUSED: _remove_trials,
}
