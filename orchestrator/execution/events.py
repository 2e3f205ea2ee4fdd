"""The events of a sweep as JSON lines in a file of the user's choice: `--events FILE`.

Each line is written at once, behind what the file already has, so others can read it while the sweep runs.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from orchestrator.errors import UserError
from trainables.runtime.secrets import without_secrets

EVENTS: dict[str, str] = {  # name -> what its line has, besides time, event and sweep
    "sweep_started": "how many trials are `finished`, `waiting`, ... (as in `status --json`)",
    "warmup_started": "`key`, `name`, `attempt`",
    "warmup_finished": "`key`, `name`, `epochs`, `seconds` that it held a slot",
    "warmup_failed": "as `trial_failed`",
    "warmup_stopped": "as `trial_stopped`",
    "trial_started": "`key`, `name`, `attempt`",
    "trial_finished": "`key`, `name`, `val_accuracy`, `seconds` that it held a slot",
    "trial_failed": "`key`, `name`, `kind` of failure, `message`, `retry` (whether it is tried again)",
    "trial_stopped": "`key`, `name`, `reason`, `early` (whether a search stopped it)",
    "sweep_paused": "the same error in two trials: `kind`, `message`, `place` (file and line), `trials`, `file` to be accepted",
    "decision": "of a search, as in decisions.jsonl: `kind`, `group`, `reason`, ...",
    "recommendation_changed": "`group`, `configuration`, `value`, `certainty`, and the `sentence` of the report",
    "tracking_backlog": "MLflow fails, or takes everything again: `pending` events, and the `error` or null",
    "sweep_finished": "`exit_code`, `seconds`, the counts of `sweep_started`",
}


class EventFile:
    """Appends events to a file; without a path it takes them and does nothing.

    Attributes:
        sweep: its name, which each line has.
        notify: called once with a line if the file can no longer be written; the sweep goes on.
    """

    def __init__(self, path: str | None = None, sweep: str = "") -> None:
        """Raises UserError if the file cannot be written."""
        self.path = path
        self.sweep = sweep
        self.notify: Callable[[str], None] = lambda line: None
        self._descriptor: int | None = None
        self._failed = self._torn = False
        if path is None:
            return
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        except OSError as error:
            raise UserError(
                f"--events: must be a file that can be written, got {path}: {error.strerror}",
                "give another one",
                code="events-not-writable",
            ) from None

    def write(self, event: str, **facts: Any) -> None:
        """Appends one event."""
        if self._descriptor is None:
            return
        assert event in EVENTS, event
        time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        facts = {"time": time, "event": event, "sweep": self.sweep} | _without_infinities(facts)
        line = without_secrets(json.dumps(facts)) + "\n"
        content = (("\n" if self._torn else "") + line).encode()
        try:
            self._torn = os.write(self._descriptor, content) < len(content)
            failed = "the line did not fit" if self._torn else ""
        except OSError as error:
            failed = str(error.strerror)
        if failed and not self._failed:
            self.notify(f"--events: {self.path} cannot be written any more: {failed}; the sweep goes on without")
        self._failed = bool(failed)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _without_infinities(value: Any) -> Any:
    """The value with null for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: _without_infinities(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_infinities(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
