"""What earlier attempts at a trial have left: its result, if it is finished, and files that are of no use any more."""

from __future__ import annotations

import logging
from typing import Any

from trainables.records.file_names import CHECKPOINT, ERROR, RESULT, STOPPED
from trainables.records.metrics import DamagedRecordError
from trainables.records.result_record import decode_result
from trainables.trial.context import TrialContext

log = logging.getLogger(__name__)


def finished_result(context: TrialContext) -> dict[str, Any] | None:
    """The trial's result; None if it does not exist or is damaged, so that the trial writes it again."""
    content = context.files.read(RESULT)
    try:
        return None if content is None else decode_result(content, context.files.key)
    except DamagedRecordError as error:
        log.warning("%s of trial %s %s; it is computed again", RESULT, context.files.key, error)
        return None


def remove_leftovers(context: TrialContext) -> None:
    """Removes what an attempt has left that was interrupted right after its result."""
    for leftover in (CHECKPOINT, ERROR, STOPPED):
        if context.files.read(leftover) is not None:
            context.files.remove(leftover)
    remove_private_snapshots(context)


def remove_private_snapshots(context: TrialContext) -> None:
    """Removes the snapshots that no other trial may read."""
    if not context.shares_snapshots:
        for epoch in context.snapshots.epochs():
            context.snapshots.remove(epoch)
        context.snapshots.remove_rules()
