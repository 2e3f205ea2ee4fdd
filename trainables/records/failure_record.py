"""error.json: why the last attempt at a trial has failed, without secrets that the error quotes."""

from __future__ import annotations

import json
import time

from trainables.errors import FailureKind
from trainables.records.file_names import ERROR
from trainables.records.protocols import TrialFiles
from trainables.records.self_digest import with_digest
from trainables.runtime.secrets import without_secrets


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
