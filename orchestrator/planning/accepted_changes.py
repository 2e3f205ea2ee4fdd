"""Trials that stay in a sweep though they were made with an earlier version of a file of the user's.

A changed file gives every trial that uses it another key. Where the user accepts the change, finished trials keep their keys,
and trials.json says which ones, under which inputs they were made, and when that was accepted.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from orchestrator.planning.inputs import Inputs
from orchestrator.state.earlier_files import FIELD, Files
from trainables.config.trial import TrialConfig
from trainables.custom.files import CustomFiles


@dataclass(frozen=True, kw_only=True, slots=True)
class AcceptedChange:
    """One file that was changed; `earlier` and `present` are its SHA-256."""

    time_ms: int
    file: str
    earlier: str
    present: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AcceptedChanges:
    """What a sweep keeps of earlier files.

    Attributes:
        changes: all that were accepted, oldest first.
        inputs: under which the trials were made.
        finished: trials with a result that stay: key -> the earlier files that it was made with.
        stopped: keys of those that stay and that a search stopped early.
    """

    changes: tuple[AcceptedChange, ...] = ()
    inputs: tuple[Inputs, ...] = ()
    finished: Mapping[str, Files] = field(default_factory=dict)
    stopped: frozenset[str] = frozenset()

    def keys_of(self, config: TrialConfig) -> tuple[str, str] | None:
        """The keys of a trial that stays, and of its warm-up; None if this configuration has none."""
        return _keys_in(self.inputs, config, self.finished.keys() | self.stopped)

    def to_record(self) -> dict[str, Any]:
        """As a field of trials.json; empty without changes."""
        if not self.changes:
            return {}
        record = {
            "changes": [asdict(change) for change in self.changes],
            "inputs": [inputs.to_record() for inputs in self.inputs],
            "finished": {key: dict(files) for key, files in self.finished.items()},
            "stopped": sorted(self.stopped),
        }
        return {FIELD: record}

    @staticmethod
    def from_record(record: Mapping[str, Any], custom_files: CustomFiles) -> AcceptedChanges:
        """Those in a trials.json."""
        values = record.get(FIELD)
        if not values:
            return NO_CHANGES
        return AcceptedChanges(
            changes=tuple(AcceptedChange(**change) for change in values["changes"]),
            inputs=tuple(Inputs.from_record(one, custom_files) for one in values["inputs"]),
            finished=values["finished"],
            stopped=frozenset(values["stopped"]),
        )


NO_CHANGES = AcceptedChanges()


@dataclass(frozen=True, kw_only=True, slots=True)
class LastRun:
    """What the last run of a sweep has planned, as its trials.json tells.

    Attributes:
        keys: of its trials.
    """

    inputs: Inputs
    keys: frozenset[str]
    accepted: AcceptedChanges

    def keys_of(self, config: TrialConfig) -> tuple[str, str] | None:
        """The keys that a trial and its warm-up had in that run; None if it was not one of its trials."""
        return _keys_in((self.inputs, *self.accepted.inputs), config, self.keys)

    def accepted_under(self, inputs: Inputs) -> AcceptedChanges:
        """What stays under the present inputs: all that did, unless the data or a file has changed since."""
        before, now = self.inputs.custom_files, inputs.custom_files
        shared = before.digests.keys() & now.digests.keys()
        same = self.inputs.data_digest == inputs.data_digest and all(before.identity(r) == now.identity(r) for r in shared)
        return self.accepted if same else NO_CHANGES

    @staticmethod
    def from_record(record: Mapping[str, Any], custom_files: CustomFiles) -> LastRun:
        """That of a trials.json.

        Args:
            custom_files: where the files are.
        """
        return LastRun(
            inputs=Inputs.from_record(record, custom_files),
            keys=frozenset(trial["key"] for trial in record["trials"]),
            accepted=AcceptedChanges.from_record(record, custom_files),
        )


def _keys_in(candidates: tuple[Inputs, ...], config: TrialConfig, wanted: Container[str]) -> tuple[str, str] | None:
    for inputs in candidates:
        if inputs.know(config) and (keys := inputs.keys_of(config))[0] in wanted:
            return keys
    return None
