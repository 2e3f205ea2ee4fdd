"""Files of a sweep that are missing or not what was written: its specification, its list of trials, and smaller ones."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from orchestrator.command_line import command
from orchestrator.errors import SweepError
from orchestrator.execution.driver import initial_state
from orchestrator.execution.sweep_files import write_sweep_files, write_trials
from orchestrator.planning.plan import Plan
from orchestrator.repair.mismatch import Mismatch, Scope, sweep_file_to_move
from orchestrator.repair.small_files import is_record
from orchestrator.scheduling.stage_queue import StageQueue
from orchestrator.search.decision_file import DecisionFile
from orchestrator.search.plans import plan_from_record, plan_sweep
from orchestrator.spec.loader import load_spec, spec_from_resolved
from orchestrator.spec.schema import SweepSpec
from orchestrator.state.sweep_folder import RENAMED, SweepFolder
from orchestrator.storage.layout import set_aside

SPEC, TRIALS, RESOLVED, DECISIONS = "spec.json", "trials.json", "resolved.json", "decisions.jsonl"
FIELDS = {SPEC: ("name", "tracking"), TRIALS: ("trials", "data_digest")}


def damaged_sweep_files(scope: Scope) -> Iterator[Mismatch]:
    """Missing and damaged files of whole sweeps."""
    for folder in scope.sweeps():
        names = (SPEC, TRIALS, RESOLVED, RENAMED)
        contents = dict(zip(names, folder.storage.read_all([folder.file(name) for name in names]), strict=True))
        damaged = {
            name for name, content in contents.items() if content is not None and not is_record(content, *FIELDS.get(name, ()))
        }
        if contents[SPEC] is None or SPEC in damaged:
            yield _restored(folder, SPEC, contents[SPEC] is None, partial(_plan_of_sweep_file, folder))
        elif TRIALS in damaged:
            yield _restored(folder, TRIALS, False, partial(_plan_of_spec, folder))
        elif folder.storage.exists(folder.file(DECISIONS)):
            yield from _damaged_decisions(folder)
        for name in damaged & {RESOLVED, RENAMED}:
            yield sweep_file_to_move(folder, name, "damaged file")


def _restored(folder: SweepFolder, name: str, is_missing: bool, plan: Callable[[], Plan | None]) -> Mismatch:
    """The mismatch of a file that is made again, if that gives the trials that the sweep has."""
    place = f"{folder.file(name)} {'is missing' if is_missing else 'is damaged'}"
    if plan() is None:
        hint = f"run the sweep with its file again: `{command('run', 'FILE')}`; finished trials stay"
        return Mismatch(kind="damaged sweep", place=place, remedy=hint, mend=None)
    return Mismatch(
        kind="damaged sweep",
        place=place,
        remedy="makes it again from the sweep's other files",
        mend=partial(_write_again, folder, name, plan),
        sweeps=frozenset({folder.name}),
    )


def _write_again(folder: SweepFolder, name: str, make: Callable[[], Plan | None]) -> None:
    plan = make()
    if plan is None:
        return
    if folder.storage.exists(folder.file(name)):
        set_aside(folder.storage, folder.file(name))
    text = (folder.storage.read(folder.file("sweep.yaml")) or b"").decode()
    write_sweep_files(folder, plan, text)


def _plan_of_sweep_file(folder: SweepFolder) -> Plan | None:
    """The plan of the sweep file as written; None if options of the command line made other trials of it."""
    text = folder.storage.read(folder.file("sweep.yaml"))
    if text is None:
        return None
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "sweep.yaml")
        file.write_bytes(text)
        try:
            spec = load_spec(str(file), [f"storage={folder.storage.root}", f"name={folder.name}"])
        except SweepError:
            return None
    return _with_known_trials(folder, spec)


def _plan_of_spec(folder: SweepFolder) -> Plan | None:
    record = folder.storage.read_json(folder.file(SPEC), fields=FIELDS[SPEC])
    return _with_known_trials(folder, spec_from_resolved(record).model_copy(update={"storage": folder.storage.root}))


def _with_known_trials(folder: SweepFolder, spec: SweepSpec) -> Plan | None:
    """The plan if it has the trials that the sweep's other files name; None if that is not so, or not known."""
    try:
        plan = plan_sweep(spec, folder.storage)
    except SweepError:
        return None
    record = folder.storage.read_json(folder.file(TRIALS), fields=FIELDS[TRIALS])
    state = folder.read_state()
    known = {one["key"] for one in record["trials"]} if record else set(state.trials) if state else set()
    return plan if known and known == {trial.key for trial in plan.trials} else None


def _damaged_decisions(folder: SweepFolder) -> Iterator[Mismatch]:
    try:
        DecisionFile(folder.storage, folder.name).read()
    except SweepError as error:
        yield Mismatch(
            kind="damaged decisions",
            place=error.message,
            remedy="renames the file: finished trials stay, and `resume` has the search decide anew",
            mend=partial(_forget_decisions, folder),
            sweeps=frozenset({folder.name}),
        )


def _forget_decisions(folder: SweepFolder) -> None:
    """The sweep as it was before its search had decided anything."""
    record = folder.storage.read_json(folder.file(TRIALS), fields=FIELDS[TRIALS])
    spec = spec_from_resolved(folder.storage.read_json(folder.file(SPEC), fields=FIELDS[SPEC]))
    DecisionFile(folder.storage, folder.name).set_aside()
    plan = plan_from_record(spec.model_copy(update={"storage": folder.storage.root}), folder.storage, record)
    write_trials(folder, plan)
    folder.write_state(initial_state(plan, folder.read_state(), StageQueue(warmups={}, trials={})))
