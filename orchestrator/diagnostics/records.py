"""The doctor's check of a storage's records: which files of finished trials are damaged, and their repair."""

from __future__ import annotations

import time
from collections.abc import Iterator

from orchestrator.command_line import command
from orchestrator.diagnostics.checks import Check, from_error
from orchestrator.state.driver_liveness import driver_alive
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.state.trial_results import Damage, damaged_files, damaged_metrics, damaged_model, read_results
from orchestrator.storage.base import Storage
from orchestrator.storage.layout import archive_trial
from trainables.errors import StorageError
from trainables.wording import listed

SHOWN = 5


def record_checks(storage: Storage, fix: bool) -> Iterator[Check]:
    """One check of all records; none if no trial has finished.

    Args:
        fix: archive damaged trials, so that the next run computes them again. Then the models of an object store are read too.
    """
    started = time.monotonic()
    try:
        results, damage = read_results(storage, storage.names("trials"))
        if storage.folder is not None or not fix:
            damage |= damaged_files(storage, results)
        else:
            damage |= damaged_metrics(storage, results)
            damage |= {key: problem for key, one in results.items() if (problem := damaged_model(storage, key, one))}
        if damage:
            yield _repaired(storage, damage) if fix else _damaged(damage)
        elif results:
            seconds = time.monotonic() - started
            models = "" if storage.folder is not None or fix else f", models not read (`{command('doctor', '--fix')}` does)"
            message = f"{len(results)} finished trials are undamaged ({seconds:.1f} s){models}"
            yield Check(name="records", ok=True, message=message)
    except StorageError as error:
        yield from_error("records", error)


def _damaged(damage: Damage) -> Check:
    hint = f"`{command('doctor', '--fix')}` archives these trials, and `run` or `resume` of their sweep computes them again"
    return Check(name="records", ok=False, message=_list(damage), hint=hint)


def _repaired(storage: Storage, damage: Damage) -> Check:
    driven = [name for name in storage.names("sweeps") if _is_driven(storage, name)]
    if driven:
        message = f"{_list(damage)}; sweep {driven[0]!r} is running"
        hint = f"stop it with `{command('stop', driven[0])}` before they are archived"
        return Check(name="records", ok=False, message=message, hint=hint)
    for key in damage:
        archive_trial(storage, key)
    message = f"{_list(damage)}: archived in trials/.aside; `run` or `resume` of their sweep computes them again"
    return Check(name="records", ok=True, message=message)


def _is_driven(storage: Storage, name: str) -> bool:
    state = SweepFolder(storage, name).read_state()
    return state is not None and driver_alive(state.driver)


def _list(damage: Damage) -> str:
    return listed(damage.values(), SHOWN)
