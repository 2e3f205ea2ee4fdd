"""The records of a storage: of a trial that ran, of an interrupted one, of a sweep and of a search."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import asdict
from pathlib import Path
from typing import Any

from orchestrator.errors import SetupError, UserError
from orchestrator.search.decisions import Decision, Kind, from_text, to_text
from orchestrator.spec.loader import resolved, spec_from_resolved
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.state.sweep_state import state_from_bytes
from orchestrator.storage.base import Storage
from orchestrator.storage.factory import open_storage
from orchestrator.storage.layout import longest_snapshot, newest_attempt, trial_file
from orchestrator.storage.local import LocalStorage
from orchestrator.tracking.records import read_record
from tests.fuzz.choices import Choices
from tests.fuzz.codec import record_edit, tensors_edit
from tests.fuzz.edits import line_edit
from tests.fuzz.sample import Sample
from tests.support.stored_sweeps import TWO_METHODS, stored_sweep
from tests.support.trials import run, tiny_config, trial_folder
from trainables.config.keys import trial_key, warmup_key
from trainables.data.digits import DIGITS_DIGEST
from trainables.errors import FailureKind
from trainables.records.checked_lines import checked_line, read_checked_line
from trainables.records.failure_record import publish_failure
from trainables.records.file_names import ERROR, METRICS, RESULT
from trainables.records.metrics import DamagedRecordError, points_from_lines
from trainables.records.result_record import decode_result

DECISIONS = [
    Decision(kind=Kind.START, values={"course": "a"}, elapsed_s=0.5),
    Decision(kind=Kind.CONFIGURATION, group="s0.9", configuration=3, values={"warmup_epochs": 4}, attributes={"question": 2}),
    Decision(kind=Kind.RESULT, group="s0.9", configuration=3, seed=1, key="ab", values={"val/accuracy": 1 / 3}, seconds=12.5),
    Decision(kind=Kind.END, group="s0.9", state="better"),
]


def samples(folder: Path) -> list[Sample]:
    storage = LocalStorage(str(folder / "runs"))
    open_storage(storage.root, create=True)
    config, failed = tiny_config(), tiny_config(seed=1)
    run(config, storage)
    key, failed_key = trial_key(config, DIGITS_DIGEST), trial_key(failed, DIGITS_DIGEST)
    publish_failure(trial_folder(failed, storage), FailureKind.CODE, "ValueError: x", "Traceback ...")
    sweep, _ = stored_sweep(TWO_METHODS, storage)
    warmup = warmup_key(config, DIGITS_DIGEST)
    snapshot = longest_snapshot(storage, warmup)
    assert snapshot is not None

    def content(name: str) -> bytes:
        text = storage.read(name)
        assert text is not None, name
        return text

    def in_place(name: str, read: Callable[[], Any], **options: Any) -> Sample:
        """A file that is read where it lies."""

        whole = content(name)

        def written_and_read(changed: bytes) -> Any:
            file = Path(storage.root, name)
            file.write_bytes(changed)
            try:
                with redirect_stderr(io.StringIO()):  # where damage is named
                    return read()
            finally:
                file.write_bytes(whole)  # which other samples read beside their own

        return Sample(name=name.rpartition("/")[2], content=whole, read=written_and_read, **options)

    def record(name: str, *fields: str) -> Sample:
        return in_place(name, lambda: storage.read_json(name, fields), edit=record_edit)

    result, metrics, attempt = (trial_file(key, name) for name in (RESULT, METRICS, "attempt.json"))
    return [
        Sample(
            name="result",
            content=content(result),
            read=lambda one: decode_result(one, key),
            errors=(DamagedRecordError,),
            edit=record_edit,
        ),
        Sample(
            name="points",
            content=content(metrics),
            read=lambda one: Subset(points_from_lines(one)),
            errors=(DamagedRecordError,),
            edit=checked_line_edit,
        ),
        Sample(
            name="decisions", content=to_text(DECISIONS).encode(), read=read_decisions, errors=(ValueError,), edit=line_edit
        ),
        Sample(name="state", content=content(sweep.file("state.json")), read=read_state),
        in_place(metrics, lambda: trial_values(storage, key)),
        in_place(result, lambda: trial_values(storage, key), edit=record_edit),
        in_place(
            trial_file(failed_key, ERROR), lambda: read_record(storage, "trial", failed_key).error or None, edit=record_edit
        ),
        in_place(snapshot, lambda: snapshot_points(storage, warmup), edit=tensors_edit),
        in_place(attempt, lambda: newest_attempt(storage, key), edit=record_edit, is_checked=False),
        in_place(
            "storage.json", lambda: open_storage(storage.root).root, errors=(SetupError,), edit=record_edit, is_checked=False
        ),
        in_place(sweep.file("spec.json"), lambda: read_spec(sweep), errors=(UserError,), edit=record_edit),
        record(sweep.file("trials.json"), "trials"),
        record(trial_file(key, "config.json"), "config"),
    ]


def read_decisions(content: bytes) -> Any:
    """The decisions as a set of lines: a lost line changes no number. None if none is whole."""
    return Subset(repr(asdict(one)) for one in from_text(content.decode()))


class Subset(frozenset[Any]):
    """Equal to every set that holds it: what is left of a file that was cut off."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, frozenset) and self <= other

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = frozenset.__hash__


def read_state(content: bytes) -> Any:
    state = state_from_bytes(content)
    return None if state is None else asdict(state)


def read_spec(sweep: SweepFolder) -> Any:
    record = sweep.storage.read_json(sweep.file("spec.json"))
    return None if record is None else resolved(spec_from_resolved(record))


def trial_values(storage: Storage, key: str) -> Any:
    """What a finished trial's folder tells MLflow; None where its damage is named."""
    record = read_record(storage, "trial", key)
    return None if record.damage else (record.result, record.points)


def snapshot_points(storage: Storage, warmup: str) -> Any:
    record = read_record(storage, "warmup", warmup)
    return None if record.damage else Subset(record.points)


def checked_line_edit(content: bytes, choices: Choices) -> bytes:
    """Points with another value in one of them and a checksum that matches it."""
    plain = [checkless(line) for line in content.splitlines()]
    edited = line_edit(b"\n".join(plain), choices).splitlines()
    return b"".join(checked_line(line.decode()).encode() + b"\n" for line in edited)


def checkless(line: bytes) -> bytes:
    return json.dumps(read_checked_line(line.decode())).encode()
