"""stopped.json of a trial: at which epoch a search stopped it early, and why. The search's decisions say the same."""

from __future__ import annotations

import json

from orchestrator.errors import UserError
from orchestrator.search.decision_file import DecisionFile
from orchestrator.search.decisions import Kind
from orchestrator.search.group_search import STOPS
from orchestrator.storage.base import Storage
from trainables.records.self_digest import with_digest


def stop_record(sweep: str, epoch: int, value: float | None, reason: str) -> bytes:
    """The content of the file.

    Args:
        epoch: sparse epochs after which the trial was stopped.
        value: the objective there.
    """
    record = {"sweep": sweep, "epoch": epoch, "value": value, "reason": reason}
    return json.dumps(with_digest(record), indent=1, sort_keys=True).encode()


def decided_stop(storage: Storage, sweep: str, key: str) -> bytes | None:
    """The content that a sweep's decisions give the file of a trial; None if they did not stop it, or cannot be read."""
    try:
        decisions = DecisionFile(storage, sweep).read()
    except UserError:
        return None
    stops = [one for one in decisions if one.kind is Kind.RUNG and one.key == key and one.state == STOPS]
    if not stops:
        return None
    last = max(stops, key=lambda one: one.epoch or 0)
    return stop_record(sweep, last.epoch or 0, last.value, last.reason)
