"""The doctor's look at the records of a storage: which files of finished trials are not what was written, and their repair."""

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
    """One check of all records; nothing where no trial has finished.

    Args:
        fix: set damaged trials aside, so that the next run computes them anew. Then the models of an object store are read too.
    """
    begun = time.monotonic()
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
            took = time.monotonic() - begun
            models = (
                "" if storage.folder is not None or fix else f", models not read (`{command('doctor', '--fix')}` reads them)"
            )
            yield Check(check="records", ok=True, message=f"{len(results)} finished trials are whole ({took:.1f} s){models}")
    except StorageError as error:
        yield from_error("records", error)


def _damaged(damage: Damage) -> Check:
    hint = f"`{command('doctor', '--fix')}` sets these trials aside, and `run` or `resume` of their sweep computes them anew"
    return Check(check="records", ok=False, message=_named(damage), hint=hint)


def _repaired(storage: Storage, damage: Damage) -> Check:
    driven = [name for name in storage.names("sweeps") if _is_driven(storage, name)]
    if driven:
        hint = f"end it with `{command('stop', driven[0])}` before they are set aside"
        return Check(check="records", ok=False, message=f"{_named(damage)}; sweep {driven[0]!r} is running", hint=hint)
    for key in damage:
        archive_trial(storage, key)
    message = f"{_named(damage)}: set aside in trials/.aside; `run` or `resume` of their sweep computes them anew"
    return Check(check="records", ok=True, message=message)


def _is_driven(storage: Storage, name: str) -> bool:
    state = SweepFolder(storage, name).read_state()
    return state is not None and driver_alive(state.driver)


def _named(damage: Damage) -> str:
    return listed(damage.values(), SHOWN)
