"""The doctor's check that the files of a storage, its sweeps and MLflow agree: what does not, by kind, and its repair."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator

from orchestrator.command_line import command
from orchestrator.diagnostics.checks import Check, from_error
from orchestrator.repair.mismatch import Scope
from orchestrator.repair.repair import Finding, findings, repair
from orchestrator.state.driver_lease import LEASE_TIMES, LeaseTimes
from orchestrator.storage.base import Storage
from trainables.errors import StorageError
from trainables.wording import counted, listed

SHOWN = 5


def agreement_checks(storage: Storage, fix: bool, times: LeaseTimes = LEASE_TIMES) -> Iterator[Check]:
    """A check for each kind of mismatch, and one that says what was compared.

    Args:
        fix: mend what does not agree; then the models, checkpoints and snapshots of an object store are read too.
    """
    started = time.monotonic()
    try:
        checks = _by_kind(repair(storage, times) if fix else findings(storage), fix=fix)
        yield from checks
        scope = Scope.of(storage, thorough=fix)
    except StorageError as error:
        yield from_error("records", error)
        return
    for name, holder in scope.running.items():
        message = f"sweep {name!r} is running ({holder}): neither it nor the trials that it uses were compared"
        yield Check(name="sweeps", ok=True, message=message)
    yield from _of_no_sweep(scope)
    if all(check.ok for check in checks) and (scope.trials() or scope.sweeps()):
        yield Check(name="records", ok=True, message=_agreement(scope, time.monotonic() - started))


def _by_kind(found: Iterable[Finding], *, fix: bool) -> list[Check]:
    kinds: dict[tuple[str, str, str, bool, str], list[str]] = defaultdict(list)
    for one in found:
        mismatch = one.mismatch
        way = mismatch.remedy if mismatch.mend is None else f"`{command('doctor', '--fix')}` {mismatch.remedy}"
        if one.mended:
            way = f"mended: the repair {mismatch.remedy}"
        elif fix and mismatch.mend is not None:
            way = f"not mended: {one.problem or 'it came again'}"
        kinds[one.check, mismatch.kind, way, one.mended, one.problem].append(mismatch.place)
    return [
        Check(name=check, ok=mended, message=f"{kind}: {listed(places, SHOWN)}", hint=way, places=tuple(places))
        for (check, kind, way, mended, _), places in kinds.items()
    ]


def _of_no_sweep(scope: Scope) -> Iterator[Check]:
    """Trials and warm-ups that no sweep uses, such as those of deleted sweeps and of the command `trial`."""
    trials = [key for key in scope.trials() if not scope.users_of(key)]
    warmups = [key for key in scope.warmups() if not scope.users_of(key)]
    if trials or warmups:
        what = " and ".join(counted(len(keys), name) for keys, name in ((trials, "trial"), (warmups, "warm-up")) if keys)
        message = f"no sweep uses {what}: {listed([*trials, *warmups], SHOWN)}"
        yield Check(name="records", ok=True, message=message)


def _agreement(scope: Scope, seconds: float) -> str:
    parts = [
        counted(len(scope.trials()), "trial"),
        counted(len(scope.warmups()), "warm-up"),
        counted(len(scope.sweeps()), "sweep"),
    ]
    message = f"{', '.join(parts)} and what MLflow shows of them agree ({seconds:.1f} s)"
    if not scope.thorough:
        message += f"; models, checkpoints and snapshots were not read (`{command('doctor', '--fix')}` does)"
    return message
