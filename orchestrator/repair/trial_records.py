"""Records of finished trials that are not what was written: result, metrics and model."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from orchestrator.repair.mismatch import Mismatch, Scope
from orchestrator.state.trial_results import damaged_metrics, damaged_model, read_results
from orchestrator.storage.layout import archive_trial, trial_file
from trainables.records.file_names import MODEL

REMEDY = "moves the trial to trials/.aside; `run` or `resume` of its sweep computes it again"


def damaged_records(scope: Scope) -> Iterator[Mismatch]:
    """Damaged results, and files that do not match their result; a removed model is no damage."""
    storage = scope.storage
    results, damage = read_results(storage, scope.trials())
    damage |= damaged_metrics(storage, results)
    for key, result in results.items() if scope.thorough else ():
        if key not in damage and storage.exists(trial_file(key, MODEL)) and (problem := damaged_model(storage, key, result)):
            damage[key] = problem
    for key, problem in damage.items():
        yield Mismatch(
            kind="damaged record",
            place=problem,
            remedy=REMEDY,
            mend=partial(archive_trial, storage, key),
            sweeps=scope.users_of(key),
        )
