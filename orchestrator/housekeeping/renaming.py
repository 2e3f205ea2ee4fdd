"""Gives a sweep another name; its trials keep their keys and folders.

At any moment at most one of both names is a whole sweep, that is a folder with trials.json:

1. renamed.json is written to the new folder, with the list of trials; then all records, which carry the new name.
2. The old folder loses its trials.json.
3. The new folder gets its trials.json, and the old one is removed.

Repeating an interrupted renaming completes it. renamed.json stays until MLflow shows the new name (tracking/renamed_runs.py).
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from typing import Any

from orchestrator.command_line import command
from orchestrator.errors import UserError
from orchestrator.spec.field_types import SWEEP_NAME, SWEEP_NAME_RULE
from orchestrator.state.driver_lease import LEASE_FILES, LEASE_TIMES, LeaseTimes
from orchestrator.state.sweep_folder import DELETING, RENAMED, SweepFolder, open_sweep
from orchestrator.storage.base import Storage

NOT_COPIED = ("trials.json", RENAMED, *LEASE_FILES)


def rename_sweep(storage: Storage, name: str, new: str, times: LeaseTimes = LEASE_TIMES) -> SweepFolder:
    """The folder of the sweep under its new name; its runs in MLflow are not touched.

    Raises:
        UserError: there is no such sweep, the new name is taken or invalid, or a record is damaged.
        SetupError: the sweep is running.
    """
    require_new_name(storage, name, new)
    before, after = SweepFolder(storage, name), SweepFolder(storage, new)
    with ExitStack() as leases:
        for folder in (before, after):
            leases.enter_context(folder.driver_lease(times))
        if before.exists():
            _copy_records(before, after)
            storage.remove(before.file("trials.json"))
        if not after.exists():
            storage.write_json(after.file("trials.json"), _whole(after, RENAMED, "trials")["trials"])
            after.log(f"renamed from {name}")
        for file in ("state.json", "spec.json"):  # by which other commands may know it
            storage.remove(before.file(file))
    storage.remove_folder(f"sweeps/{name}")
    return after


def require_new_name(storage: Storage, name: str, new: str) -> None:
    """Raises UserError if there is no such sweep, or the new name is taken or invalid."""
    before, after = SweepFolder(storage, name), SweepFolder(storage, new)
    _require_valid(name, new)
    if not _was_interrupted(before, after):
        open_sweep(storage, name)
        _require_free(after)


def _require_valid(name: str, new: str) -> None:
    if not re.fullmatch(SWEEP_NAME, new):
        raise UserError(f"the new name must be {SWEEP_NAME_RULE}, got {new!r}", "choose another", code="sweep-name-invalid")
    if new == name:
        raise UserError(f"the new name must be another one, got {new!r}", "choose another", code="sweep-name-taken")


def _require_free(after: SweepFolder) -> None:
    if after.exists():
        where = f"in storage {after.storage.root}"
        raise UserError(f"there is a sweep {after.name!r} {where}", "choose another name", code="sweep-name-taken")
    if after.storage.exists(after.file(DELETING)):
        hint = f"choose another name, or remove its rest first: `{command('delete', after.name)}`"
        raise UserError(f"the deletion of sweep {after.name!r} was interrupted", hint, code="sweep-half-deleted")


def _was_interrupted(before: SweepFolder, after: SweepFolder) -> bool:
    """Whether this renaming has been begun, and has removed the sweep under its old name."""
    if before.exists() or not before.storage.exists(after.file(RENAMED)):
        return False
    record = before.storage.read_json(after.file(RENAMED), fields=("from", "trials"))
    return record is not None and record["from"] == before.name


def _copy_records(before: SweepFolder, after: SweepFolder) -> None:
    """Writes the records of the sweep under its new name, all but trials.json, in place of what an earlier try left there."""
    storage = before.storage
    trials, spec = _whole(before, "trials.json", "trials"), _whole(before, "spec.json", "name")
    state = before.read_state()
    left = {after.file(name) for name in LEASE_FILES}
    for path in storage.files(f"sweeps/{after.name}").keys() - left:
        storage.remove(path)
    record = {"from": before.name, "parent_run_id": state.parent_run_id if state else None, "trials": trials}
    storage.write_json(after.file(RENAMED), record)
    for path in storage.files(f"sweeps/{before.name}"):
        file = path.removeprefix(before.file(""))
        if file not in NOT_COPIED:
            storage.write(after.file(file), storage.read(path) or b"")
    storage.write_json(after.file("spec.json"), spec | {"name": after.name})
    if state is not None:
        state.sweep = after.name
        after.write_state(state)
    text = (storage.read(before.file("sweep.yaml")) or b"").decode()
    storage.write(after.file("sweep.yaml"), with_name(text, before.name, after.name).encode())


def _whole(folder: SweepFolder, file: str, field: str) -> Any:
    record = folder.storage.read_json(folder.file(file), fields=(field,))
    if record is None:
        raise UserError(
            f"{folder.file(file)} of storage {folder.storage.root} must be as the sweep wrote it, got other content",
            f"`{command('resume', folder.name)}` writes it again",
            code="sweep-file-damaged",
        )
    return record


def with_name(text: str, name: str, new: str) -> str:
    """The text of a sweep file with another name; as it is where its name was given on the command line."""
    return re.sub(rf"(?m)^(name:[ \t]*)([\"']?){re.escape(name)}\2(?=\s|$)", rf"\g<1>\g<2>{new}\g<2>", text, count=1)
