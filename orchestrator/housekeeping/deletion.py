"""Deletes a sweep with the trials and warm-ups that no other sweep of the storage uses.

An interrupted deletion leaves no sweep that looks whole: deleting.json is written first and removed last, and trials.json,
without which a folder is no sweep, goes next. A trial loses its result before its other files. Repeating the deletion removes
the rest, except what other sweeps have come to use meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from orchestrator.command_line import command
from orchestrator.errors import SetupError
from orchestrator.state.driver_lease import LEASE_FILES, LEASE_TIMES, LeaseTimes
from orchestrator.state.driver_liveness import driver_alive
from orchestrator.state.sweep_folder import DELETING, SweepFolder, open_sweep
from orchestrator.state.used_keys import named_keys
from orchestrator.storage.base import FileInfo, Storage
from orchestrator.storage.layout import ASIDE, trial_file
from trainables.records.file_names import RESULT

DECISIVE_FILES = ("trials.json", "state.json", "spec.json")  # what other commands look for goes first
ARCHIVE = f"trials/{ASIDE}"


@dataclass(frozen=True, kw_only=True)
class Deletion:
    """What a deletion removes and keeps.

    Attributes:
        trials, warmups: keys of what no other sweep uses.
        kept_trials, kept_warmups: keys of what others use.
        files: kind, in words -> the files that go.
    """

    sweep: str
    trials: frozenset[str]
    warmups: frozenset[str]
    kept_trials: frozenset[str]
    kept_warmups: frozenset[str]
    files: Mapping[str, Mapping[str, FileInfo]]

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Kind -> number of files and bytes."""
        return {kind: (len(files), sum(one.bytes for one in files.values())) for kind, files in self.files.items()}


def plan_deletion(storage: Storage, name: str) -> Deletion:
    """What the deletion of a sweep would remove now.

    Raises:
        UserError: there is no such sweep.
        SetupError: it cannot be known what other sweeps use.
    """
    folder = SweepFolder(storage, name)
    if not storage.exists(folder.file(DELETING)):
        open_sweep(storage, name)
    named_trials, named_warmups = _keys_of(folder)
    trials = named_trials & frozenset(storage.names("trials"))
    warmups = named_warmups & frozenset(storage.names("warmups"))
    used = _keys_in_use(storage, name)
    mine, shared = trials - used, warmups - used
    aside = [f"{ARCHIVE}/{one}" for one in storage.names(ARCHIVE) if one.partition("-")[0] in mine]
    files = {
        "the sweep's records": storage.files(f"sweeps/{name}"),
        "trials": _files(storage, (f"trials/{key}" for key in sorted(mine))),
        "archived trials": _files(storage, aside),
        "shared warm-ups": _files(storage, (f"warmups/{key}" for key in sorted(shared))),
    }
    return Deletion(
        sweep=name,
        trials=mine,
        warmups=shared,
        kept_trials=trials & used,
        kept_warmups=warmups & used,
        files={kind: listed for kind, listed in files.items() if listed},
    )


def delete_sweep(storage: Storage, name: str, times: LeaseTimes = LEASE_TIMES) -> Deletion:
    """Deletes a sweep, or the rest of one whose deletion was interrupted, and returns what was removed.

    Raises:
        UserError: there is no such sweep.
        SetupError: the sweep is running, or it cannot be known what other sweeps use.
    """
    plan_deletion(storage, name)  # refuses before anything is written
    folder = SweepFolder(storage, name)
    with folder.driver_lease(times):
        _announce(folder, plan_deletion(storage, name))
        try:
            plan = plan_deletion(storage, name)
        except SetupError:  # a sweep has started since
            if folder.exists():
                storage.remove(folder.file(DELETING))
            raise
        _remove_files(folder, but=(DELETING, *LEASE_FILES))
        for key in sorted(plan.trials):
            storage.remove(trial_file(key, RESULT))
            storage.remove_folder(f"trials/{key}")
        for path in {path.rpartition("/")[0] for path in plan.files.get("archived trials", ())}:
            storage.remove_folder(path)
        for key in sorted(plan.warmups):
            storage.remove_folder(f"warmups/{key}")
        storage.remove(folder.file(DELETING))
    storage.remove_folder(f"sweeps/{name}")
    return plan


def _announce(folder: SweepFolder, plan: Deletion) -> None:
    """Writes down what will be removed, for sweeps that start now (require_not_being_deleted) and for the next try."""
    keys = {"trials": sorted(plan.trials | plan.kept_trials), "warmups": sorted(plan.warmups | plan.kept_warmups)}
    folder.storage.write_json(folder.file(DELETING), keys)


def _remove_files(folder: SweepFolder, but: Iterable[str]) -> None:
    """Removes the files of a sweep's folder; those go first without which it is no sweep."""
    for name in DECISIVE_FILES:
        folder.storage.remove(folder.file(name))
    kept = {folder.file(name) for name in but}
    for path in folder.storage.files(f"sweeps/{folder.name}").keys() - kept:
        folder.storage.remove(path)


def _keys_of(folder: SweepFolder) -> tuple[frozenset[str], frozenset[str]]:
    """Keys of a sweep's trials and of its shared warm-ups, also of those that only its state or its decisions name."""
    storage = folder.storage
    begun = storage.read_json(folder.file(DELETING), fields=("trials", "warmups")) or {"trials": [], "warmups": []}
    listed = (storage.read_json(folder.file("trials.json"), fields=("trials",)) or {"trials": []})["trials"]
    state = folder.read_state()
    decided = named_keys(folder, ("decisions.jsonl",))
    trials = {*begun["trials"], *(one["key"] for one in listed), *(state.trials if state else ()), *decided}
    warmups = {*begun["warmups"], *(one.get("warmup_key") for one in listed), *(state.warmups if state else ())}
    return frozenset(trials), frozenset(warmups - {None})


def _keys_in_use(storage: Storage, name: str) -> frozenset[str]:
    """Keys that the records of other sweeps name, as their own or in a setting such as `random.layers`.

    Raises:
        SetupError: another sweep may take up further trials, or its list of trials is damaged.
    """
    used: set[str] = set()
    for other in storage.names("sweeps"):
        folder = SweepFolder(storage, other)
        if other == name:
            continue
        _require_settled(folder, name)
        if not folder.exists():
            continue
        if storage.read_json(folder.file("trials.json"), fields=("trials",)) is None:
            raise SetupError(
                f"{folder.file('trials.json')} is damaged, so it is not known which trials of {name!r} sweep {other!r} uses",
                f"`{command('resume', other)}` writes it again",
                code="sweep-file-damaged",
            )
        used |= named_keys(folder)
    return frozenset(used)


def _require_settled(folder: SweepFolder, name: str) -> None:
    """Raises SetupError if a driver has just started, or runs a search, which takes up finished trials as it goes."""
    if not folder.lease_holder():
        return
    state = folder.read_state()
    if state is None or not driver_alive(state.driver) or state.search:
        what = "a search that is running" if state is not None and state.search else "starting"
        raise SetupError(
            f"sweep {folder.name!r} is {what}, and may take up trials of {name!r}",
            f"try again when it has ended, or stop it: `{command('stop', folder.name)}`",
            code="sweep-running",
        )


def _files(storage: Storage, folders: Iterable[str]) -> dict[str, FileInfo]:
    return {path: one for folder in folders for path, one in storage.files(folder).items()}
