"""error.json: why the last attempt at a trial has failed, without secrets that the error quotes."""

from __future__ import annotations

import json
import time
from typing import Any

from trainables.errors import FailureKind
from trainables.records.file_names import ERROR
from trainables.records.metrics import EARLIEST_MS
from trainables.records.protocols import TrialFiles
from trainables.records.self_digest import FIELD as DIGEST
from trainables.records.self_digest import is_whole, with_digest
from trainables.runtime.json_text import parse_json
from trainables.runtime.secrets import without_secrets

# Of all versions. The two numbers stand between the texts and the digest: a cut that takes the digest takes them too.
FIELDS: dict[str, type] = {"kind": str, "message": str, "traceback": str, "attempt": int, "time": int}


def publish_failure(files: TrialFiles, kind: FailureKind, message: str, traceback: str, place: str = "") -> None:
    """Writes error.json.

    Args:
        place: FILE:LINE of the error (failure_place.py); empty if there is none.
        traceback: of the error, or the stacks of a process that was ended.

    Raises:
        StaleAttemptError: a newer attempt has started.
    """
    record = {
        "kind": kind,
        "message": without_secrets(message),
        "traceback": without_secrets(traceback),
        "place": place,
        "attempt": files.attempt,
        "time": int(time.time() * 1000),
    }
    files.publish(ERROR, json.dumps(with_digest(record), indent=1).encode())


def read_failure(content: bytes | None) -> dict[str, Any] | None:
    """The fields of error.json without its digest; None if there is none, or if it is not what was written."""
    try:
        record = parse_json(content or b"{}")
    except ValueError:
        return None
    if not isinstance(record, dict) or not is_whole(record):
        return None
    complete = all(type(record.get(name)) is kind for name, kind in FIELDS.items())
    whole = complete and record["time"] >= EARLIEST_MS
    return {name: value for name, value in record.items() if name != DIGEST} if whole else None
