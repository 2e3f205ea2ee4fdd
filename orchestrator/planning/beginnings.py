"""Where each trial of a sweep begins when the sweep goes on, and why it has to."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from orchestrator.planning.entries import PlannedTrial
from orchestrator.planning.plan import Plan
from orchestrator.state.earlier_files import files_text
from orchestrator.state.sweep_state import SweepState, TrialStatus
from orchestrator.storage.base import Storage
from orchestrator.storage.layout import trial_file
from trainables.records.failure_record import read_failure
from trainables.records.file_names import CHECKPOINT, ERROR
from trainables.runtime.files import safetensors_metadata


class Start(StrEnum):
    """How a trial begins."""

    KEPT = "kept"
    STOPPED_EARLY = "stopped early"
    CHECKPOINT = "checkpoint"
    ZERO = "zero"
    NOT_SELECTED = "not selected"


@dataclass(frozen=True, kw_only=True, slots=True)
class Beginning:
    """How one trial begins.

    Attributes:
        phase, position: of its checkpoint; None where it has none, or where it would have to be fetched.
        kind: of the failure of a failed trial; empty where that is not known.
        reason: why it is not finished, in a line; of one that is, the earlier files that it was made with.
    """

    key: str
    name: str
    start: Start
    phase: str | None = None
    position: int | None = None
    kind: str = ""
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class LastStates:
    """How the trials of a plan stood at the end of the last run, whatever their keys were then.

    Attributes:
        earlier: present key -> the trial as it was in the last run, where its key has changed.
    """

    storage: Storage
    state: SweepState
    earlier: Mapping[str, PlannedTrial]

    def status(self, key: str) -> TrialStatus | None:
        """Of a trial of the plan; None if the last run did not have it."""
        return self.state.trials.get(self.earlier[key].key if key in self.earlier else key)

    def has_failed(self, key: str) -> bool:
        status = self.status(key)
        return status is not None and status.state == "failed"

    def kind(self, key: str) -> str:
        """The kind of failure of a trial that has failed; empty of any other, or where it is not known."""
        status = self.status(key)
        if status is None or status.state != "failed":
            return ""
        if status.failure is not None:
            return status.failure
        record = read_failure(self.storage.read(trial_file(status.key, ERROR)))
        return record["kind"] if record else ""

    def reason(self, key: str) -> str:
        """Why a trial is not finished, in a line."""
        status = self.status(key)
        if status is None or status.state == "waiting":
            return "has not begun" if status is None or status.phase is None else "was interrupted"
        if status.state == "finished":
            return "is to be computed again"
        if status.state == "running":
            return "was interrupted"
        line = (status.error or "").partition("\n")[0]
        place = f" at {status.place}" if status.place else ""
        return f"failed ({self.kind(key) or 'kind not known'}){place}: {line}" if status.state == "failed" else line


def beginnings(
    plan: Plan, last: LastStates, selected: Collection[str], *, from_scratch: bool, storage: Storage
) -> list[Beginning]:
    """Of each trial of the plan, in its order.

    Args:
        selected: keys of the trials to run.
        from_scratch: checkpoints are not used.
    """

    def beginning(trial: PlannedTrial) -> Beginning:
        if trial.key in selected:
            place = None if from_scratch else _checkpoint(storage, trial.key)
            return Beginning(
                key=trial.key,
                name=trial.name,
                start=Start.ZERO if place is None else Start.CHECKPOINT,
                phase=place and place[0],
                position=place and place[1],
                kind=last.kind(trial.key),
                reason=plan.damage.get(trial.key) or last.reason(trial.key),
            )
        if trial.result is not None:
            return Beginning(key=trial.key, name=trial.name, start=Start.KEPT, reason=_made_with(trial, plan))
        if trial.key in plan.stopped:
            reason = plan.stopped[trial.key].reason
            return Beginning(key=trial.key, name=trial.name, start=Start.STOPPED_EARLY, reason=reason)
        kind, reason = last.kind(trial.key), last.reason(trial.key)
        return Beginning(key=trial.key, name=trial.name, start=Start.NOT_SELECTED, kind=kind, reason=reason)

    return [beginning(trial) for trial in plan.trials]


def _made_with(trial: PlannedTrial, plan: Plan) -> str:
    files = plan.accepted.finished.get(trial.key)
    return f"made with an earlier {files_text(files)}" if files else ""


def _checkpoint(storage: Storage, key: str) -> tuple[str | None, int | None] | None:
    """Phase and position of a trial's checkpoint, each None where it would have to be fetched; None if there is none."""
    name = trial_file(key, CHECKPOINT)
    if storage.folder is None:
        return (None, None) if storage.exists(name) else None
    file = storage.folder / name
    with suppress(OSError), open(file, "rb") as content:
        head = content.read(8)
        length = min(int.from_bytes(head, "little"), file.stat().st_size)  # whatever a damaged file claims
        with suppress(ValueError, KeyError, TypeError):
            state = json.loads(safetensors_metadata(head + content.read(length))["state"])
            return str(state["phase"]), int(state["position"])
    return None  # there is none, or a damaged one, which is of no use
