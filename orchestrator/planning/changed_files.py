"""Which files of the user's have changed since the last run of a sweep, and what becomes of the trials made before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.errors import UserError
from orchestrator.planning.accepted_changes import AcceptedChange, AcceptedChanges, LastRun
from orchestrator.planning.entries import PlannedTrial
from orchestrator.planning.inputs import Inputs
from orchestrator.planning.plan import Plan, with_results
from orchestrator.state.earlier_files import SHOWN_DIGITS
from orchestrator.state.trial_results import read_results
from orchestrator.storage.base import Storage
from trainables.custom.files import local_path, source_file
from trainables.custom.references import DATA_FILES, custom_references, module_and_function
from trainables.custom.versions import NAME
from trainables.wording import counted


@dataclass(frozen=True, kw_only=True, slots=True)
class ChangedFile:
    """A file that is another one than in the last run.

    Attributes:
        name: path below `modules_path`, such as net.py.
        path: where it is; empty of initial weights and timings.
        references: functions of it that the sweep uses, or one of DATA_FILES.
        earlier, present: SHA-256.
        versions: those that both files declare; empty where one declares none.
        trials: finished trials of the sweep that were made with an earlier one.
    """

    name: str
    path: str
    references: frozenset[str]
    earlier: str
    present: str
    trials: int
    versions: tuple[str, ...] = ()

    @property
    def can_be_accepted(self) -> bool:
        """Whether finished trials may stay; initial weights and timings decide every number."""
        return self.references.isdisjoint(DATA_FILES)

    @property
    def difference(self) -> str:
        """What it was and is, in words."""
        if self.versions:
            return f"{NAME} {' -> '.join(self.versions)}"
        return f"SHA-256 {self.earlier[:SHOWN_DIGITS]} -> {self.present[:SHOWN_DIGITS]}"

    def is_meant_by(self, name: str) -> bool:
        """Whether a user who writes this path, module or reference means the file."""
        modules = {module_and_function(reference)[0] for reference in self.references}
        if name in {self.name, *modules, *self.references}:
            return True
        return bool(self.path) and Path(name).expanduser().absolute().resolve() == Path(self.path).resolve()


@dataclass(frozen=True, kw_only=True, slots=True)
class Changes:
    """What differs from the last run.

    Attributes:
        files: the changed ones, by name.
        earlier: present key -> the same trial as it was in the last run, with its result if it is finished; of trials that are
            not finished with the present files.
    """

    files: tuple[ChangedFile, ...] = ()
    earlier: Mapping[str, PlannedTrial]

    @property
    def finished(self) -> list[PlannedTrial]:
        """Finished trials that were made with an earlier file."""
        return [trial for trial in self.earlier.values() if trial.result is not None]

    def sentence(self, plan: Plan) -> str:
        """Which files have changed, and how many finished trials that concerns."""
        names = " and ".join(f"{file.name} ({file.difference})" for file in self.files)
        have = "has" if len(self.files) == 1 else "have"
        trials = counted(len(plan.trials), "trial")
        made = f"{len(self.finished)} of {trials} were finished before" if self.finished else "no trial was finished before"
        return f"{names} {have} changed since the last run of sweep {plan.spec.name!r}, and {made}"


def changes_since_last_run(plan: Plan, storage: Storage) -> Changes:
    """What has changed since the last run of the sweep; without a change of files everything is empty."""
    last = plan.last_run
    references = _changed_references(last, plan)
    if last is None or plan.inputs is None or not references:
        return Changes(earlier={})
    keys = {trial.key: last.keys_of(trial.config) for trial in plan.trials if trial.result is None}
    moved = {present: earlier for present, earlier in keys.items() if earlier is not None and earlier[0] != present}
    results, _ = read_results(storage, [key for key, _ in moved.values()])
    earlier = {
        trial.key: replace(trial, key=key, warmup_key=warmup, result=results.get(key))
        for trial in plan.trials
        if trial.key in moved
        for key, warmup in [moved[trial.key]]
    }
    finished = [trial for trial in earlier.values() if trial.result is not None]
    names = {reference: _name(reference, plan) for reference in references}
    files = [
        _changed_file(name, [one for one in references if names[one] == name], finished, last, plan)
        for name in dict.fromkeys(names.values())
    ]
    return Changes(files=tuple(files), earlier=earlier)


def _changed_references(last: LastRun | None, plan: Plan) -> list[str]:
    if last is None:
        return []
    before, now = last.inputs.custom_files, plan.custom_files
    return [one for one in now.digests if one in before.digests and before.identity(one) != now.identity(one)]


def _changed_file(
    name: str, references: Sequence[str], finished: Sequence[PlannedTrial], last: LastRun, plan: Plan
) -> ChangedFile:
    before, now, first = last.inputs.custom_files, plan.custom_files, references[0]
    versions = [one.versions[first] for one in (before, now) if first in one.versions]
    return ChangedFile(
        name=name,
        path="" if first in DATA_FILES else str(source_file("module", first, now.modules_path)),
        references=frozenset(references),
        earlier=before.digests[first],
        present=now.digests[first],
        versions=tuple(versions) if len(versions) == 2 else (),
        trials=sum(not set(references).isdisjoint(custom_references(trial.config).values()) for trial in finished),
    )


def _name(reference: str, plan: Plan) -> str:
    if reference in DATA_FILES:
        return plan.custom_files.data_file(reference)
    file, folder = source_file("module", reference, plan.custom_files.modules_path), local_path(plan.custom_files.modules_path)
    return str(file.relative_to(folder)) if file.is_relative_to(folder) else str(file)


def accept_changes(plan: Plan, changes: Changes, storage: Storage, time_ms: int) -> Plan:
    """The plan in which finished trials, and those that a search has stopped early, stay as they were made before.

    Raises:
        UserError: other files decide where training starts or what the images are, so results could not be compared.
    """
    last, inputs = plan.last_run, plan.inputs
    assert last is not None
    assert inputs is not None
    for file in changes.files:
        if not file.can_be_accepted:
            raise UserError(
                f"--accept-changed {file.name}: trials that start from other weights, or that other timings decide, "
                "cannot stand beside earlier ones",
                "use --recompute",
                code="change-not-acceptable",
            )
    earlier_inputs = (last.inputs, *last.accepted.inputs)
    if not all(_same_images(one, inputs) for one in earlier_inputs):
        raise UserError(
            "--accept-changed: the data are not those of the last run, so its trials cannot stand beside new ones",
            "use --recompute",
            code="change-not-acceptable",
        )
    news = [
        AcceptedChange(time_ms=time_ms, file=file.name, earlier=file.earlier, present=file.present) for file in changes.files
    ]
    accepted = AcceptedChanges(
        changes=(*last.accepted.changes, *news),
        inputs=earlier_inputs,
        finished={trial.key: _earlier_files(trial, plan) for trial in changes.finished},
        stopped=frozenset(trial.key for trial in changes.earlier.values() if trial.key in plan.stopped),
    )
    trials, damage = with_results(plan.trials, accepted, storage)
    return replace(plan, trials=tuple(trials), accepted=accepted, damage={**plan.damage, **damage})


def _earlier_files(trial: PlannedTrial, plan: Plan) -> dict[str, str]:
    """File -> SHA-256, of the files that a finished trial was made with and that are others now."""
    assert trial.result is not None
    present, references = plan.custom_files.digests_of(trial.config), custom_references(trial.config)
    before: dict[str, str] = trial.result.get("own_digests", {})
    return {_name(references[key], plan): sha256 for key, sha256 in before.items() if present[key] != sha256}


def _same_images(before: Inputs, now: Inputs) -> bool:
    """Whether data are the same; of a data function that was changed, whether it still returns the same arrays."""
    if before.data_digest == now.data_digest:
        return True
    digests = [one.data_facts.arrays_digest if one.data_facts else None for one in (before, now)]
    return digests[0] is not None and digests[0] == digests[1]


def chosen_files(plan: Plan, changes: Changes, names: Sequence[str]) -> set[str]:
    """Names of the changed files that a user means; one whose change was accepted before needs no other word.

    Raises:
        UserError: one of the names is that of no changed file.
    """
    chosen: set[str] = set()
    before = {change.file for change in plan.accepted.changes}
    for name in names:
        meant = {file.name for file in changes.files if file.is_meant_by(name)}
        if not meant and name not in before:
            changed = ", ".join(file.name for file in changes.files) or "none"
            raise UserError(
                f"--accept-changed {name}: must be a file that has changed since the last run",
                f"changed: {changed}",
                code="file-not-changed",
            )
        chosen |= meant
    return chosen
