"""Keeps `gc` and whatever takes a sweep's lease apart: each takes its own lease first, and then looks for the other's.

So of two that start at the same moment at least one sees the other, on folders and on object stores alike. Sweeps that run
already go on: gc keeps what they name.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.errors import SetupError
from orchestrator.state.driver_lease import LEASE_TIMES, LeaseHeldError, LeaseTimes, driver_lease, lease_holder
from orchestrator.state.driver_liveness import driver_alive, this_driver
from orchestrator.storage.base import Storage

FOLDER = "gc"  # in the storage; holds nothing but the lease
LOOKS, PAUSE_S = 3, 0.1  # another process that looks at the same moment seems to hold the lock


@contextmanager
def gc_lease(storage: Storage, times: LeaseTimes = LEASE_TIMES) -> Iterator[None]:
    """Holds the lease of the storage's only gc during the block. Raises SetupError if another one runs."""
    try:
        with driver_lease(storage, FOLDER, this_driver, driver_alive, times):
            yield
    except LeaseHeldError as error:
        raise _running(storage, str(error)) from None


def require_no_gc(storage: Storage) -> None:
    """Raises SetupError if a gc of the storage runs. The caller holds the lease of its sweep."""
    for look in range(LOOKS):
        holder = lease_holder(storage, FOLDER, driver_alive)
        if not holder:
            return
        if look < LOOKS - 1:
            time.sleep(PAUSE_S)
    raise _running(storage, holder)


def _running(storage: Storage, holder: str) -> SetupError:
    message = f"`gc` of storage {storage.root} is being run by {holder}"
    return SetupError(message, "try again when it has ended", code="gc-running")
