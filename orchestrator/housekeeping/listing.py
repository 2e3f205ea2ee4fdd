"""The sweeps of a storage, and how each stands."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.state.driver_liveness import driver_alive
from orchestrator.state.sweep_folder import DELETING, SweepFolder
from orchestrator.state.sweep_state import SweepState, state_from_bytes
from orchestrator.storage.base import Storage


@dataclass(frozen=True, kw_only=True)
class SweepSummary:
    """One sweep.

    Attributes:
        state: running, finished, failed (nothing is left but trials that failed), unfinished, or unknown where state.json is
            missing or damaged; "half deleted" of one whose deletion was interrupted.
        total: trials so far; of a search that goes on, more may come.
        finished: trials with a result; `stopped_early` ones are not among them.
        settled: no further trials will join.
        changed: Unix time of the last change of its state.
        bytes: of the files in its own folder; trials and warm-ups may be shared.
    """

    name: str
    state: str
    total: int
    finished: int
    failed: int
    stopped_early: int
    settled: bool
    changed: float
    bytes: int


def sweep_summaries(storage: Storage) -> list[SweepSummary]:
    """All sweeps of a storage, the last changed first; one listing, and one read for each sweep."""
    files = storage.files("sweeps")
    names = sorted({path.split("/")[1] for path in files if path.count("/") >= 2})
    folders = [SweepFolder(storage, name) for name in names]
    folders = [one for one in folders if one.file("trials.json") in files or one.file(DELETING) in files]
    contents = storage.read_all([one.file("state.json") for one in folders])
    sizes = dict.fromkeys(names, 0)
    for path, one in files.items():
        sizes[path.split("/")[1]] = sizes.get(path.split("/")[1], 0) + one.bytes
    summaries = []
    for folder, content in zip(folders, contents, strict=True):
        state = None if content is None else state_from_bytes(content)
        newest = files.get(folder.file("state.json")) or files.get(folder.file("trials.json")) or files[folder.file(DELETING)]
        whole = folder.file("trials.json") in files
        summaries.append(_summary(folder.name, state, newest.modified, sizes[folder.name], whole))
    return sorted(summaries, key=lambda one: (-one.changed, one.name))


def _summary(name: str, state: SweepState | None, changed: float, size: int, whole: bool) -> SweepSummary:
    known = state or SweepState(sweep=name, settled=False)
    counts = known.counts()
    return SweepSummary(
        name=name,
        state=_state(state) if whole else "half deleted",
        total=len(known.trials),
        finished=counts["finished"],
        failed=counts["failed"],
        stopped_early=known.stopped_early,
        settled=known.settled,
        changed=changed,
        bytes=size,
    )


def _state(state: SweepState | None) -> str:
    if state is None:
        return "unknown"
    if driver_alive(state.driver):
        return "running"
    if state.is_complete:
        return "finished"
    counts = state.counts()
    left = counts["waiting"] + counts["running"] + counts["stopped"] - state.stopped_early
    return "failed" if counts["failed"] and not left and state.settled else "unfinished"
