"""Checkpoints of unfinished trials and snapshots of warm-ups that are not what was written."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from orchestrator.repair.mismatch import Mismatch, Scope
from orchestrator.storage.layout import SNAPSHOT_NAME, set_aside, trial_file
from trainables.records.file_names import CHECKPOINT

CHECKPOINT_REMEDY = "moves it to trials/.aside; the trial starts again"
SNAPSHOT_REMEDY = "moves it to .aside; what needs it trains it again, to the same bits"


def damaged_checkpoints(scope: Scope) -> Iterator[Mismatch]:
    """Damaged checkpoints and snapshots, and those of other trials or warm-ups."""
    if not scope.thorough:
        return
    storage = scope.storage
    files: list[tuple[str, str, str, str]] = []  # key of the user, path, kind, remedy
    for key in scope.trials():
        if storage.exists(trial_file(key, CHECKPOINT)):
            files.append((key, trial_file(key, CHECKPOINT), "damaged checkpoint", CHECKPOINT_REMEDY))
        files += [(key, path, "damaged snapshot", SNAPSHOT_REMEDY) for path in _snapshots(scope, f"trials/{key}/warmup")]
    for key in scope.warmups():
        files += [(key, path, "damaged snapshot", SNAPSHOT_REMEDY) for path in _snapshots(scope, f"warmups/{key}")]
    if not files:
        return
    from trainables.trial.checkpoint import checkpoint_damage  # which needs PyTorch

    for key, path, kind, remedy in files:
        content = storage.read(path)
        if content is not None and (problem := checkpoint_damage(content, key)):
            yield Mismatch(
                kind=kind,
                place=f"{path}: {problem}",
                remedy=remedy,
                mend=partial(set_aside, storage, path),
                sweeps=scope.users_of(key),
            )


def _snapshots(scope: Scope, folder: str) -> list[str]:
    return [f"{folder}/{name}" for name in scope.storage.names(folder) if SNAPSHOT_NAME.fullmatch(name)]
