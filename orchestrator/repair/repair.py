"""Compares a storage with itself and with MLflow, and mends what does not agree; deletes nothing.

A repair is safe beside sweeps that run, on any host: what they use is neither compared nor touched. What it mends it compares
once more while it holds the leases of all sweeps concerned, so that none of them can start in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from orchestrator.errors import SweepError
from orchestrator.repair.mismatch import Mismatch, Scope
from orchestrator.repair.table import FAMILIES, Family
from orchestrator.state.driver_lease import LEASE_TIMES, LeaseTimes
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.base import Storage
from trainables.errors import StorageError

Problems = dict[tuple[str, str], str]  # identity of a mismatch -> why it could not be mended


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A mismatch, and what became of it.

    Attributes:
        check: name of its family.
        mended: whether it is no more.
        problem: why it could not be mended, if that was tried.
    """

    check: str
    mismatch: Mismatch
    mended: bool = False
    problem: str = ""


def findings(storage: Storage) -> Iterator[Finding]:
    """All mismatches; changes nothing."""
    for family in FAMILIES:
        found = _compare(family, Scope.of(storage, thorough=False))
        running = Scope.of(storage, thorough=False).running if found else {}
        for one in found:
            if not one.sweeps & running.keys():  # else a sweep has started meanwhile
                yield Finding(check=family.check, mismatch=one)


def repair(storage: Storage, times: LeaseTimes = LEASE_TIMES) -> Iterator[Finding]:
    """Mends all mismatches, family by family, and says of each what became of it."""
    for family in FAMILIES:
        found = {_identity(one): one for one in _compare(family, Scope.of(storage, thorough=True))}
        if not found:
            continue
        problems = _mend(storage, family, list(found.values()), times)
        left = {_identity(one): one for one in _compare(family, Scope.of(storage, thorough=True))}
        for identity, one in (found | left).items():
            mended = identity not in left and identity not in problems
            yield Finding(check=family.check, mismatch=one, mended=mended, problem=problems.get(identity, ""))


def _mend(storage: Storage, family: Family, found: Sequence[Mismatch], times: LeaseTimes) -> Problems:
    """Mends what can be, under the leases of all sweeps that it concerns; returns why the rest could not."""
    problems: Problems = {}
    names = {name for one in found if one.mend for name in one.sweeps}
    with ExitStack() as leases:
        refused: dict[str, str] = {}
        for name in sorted(names):
            try:
                leases.enter_context(SweepFolder(storage, name).driver_lease(times))
            except (SweepError, StorageError) as error:
                refused[name] = error.message
        for one in found:
            problems |= {_identity(one): refused[name] for name in one.sweeps & refused.keys()}
        held = frozenset(names - refused.keys())
        again = _compare(family, Scope.of(storage, thorough=True, held=held))
        mendable = [one for one in again if one.mend and one.sweeps <= held]
        for one in mendable:
            problems |= _tried(one.mend, [one])
        for step in {one.afterwards for one in mendable}:
            problems |= _tried(step, [one for one in mendable if one.afterwards is step])
    return problems


def _tried(step: Callable[[], object] | None, mended: Sequence[Mismatch]) -> Problems:
    """Takes a step of mending; the error by each mismatch if it fails."""
    try:
        if step is not None:
            step()
    except (SweepError, StorageError, OSError) as error:
        return {_identity(one): str(error) for one in mended}
    return {}


def _compare(family: Family, scope: Scope) -> list[Mismatch]:
    try:
        return list(family.compare(scope))
    except (SweepError, StorageError) as error:
        return [Mismatch(kind="cannot be compared", place=error.message, remedy=error.hint, mend=None)]


def _identity(one: Mismatch) -> tuple[str, str]:
    return one.kind, one.place
