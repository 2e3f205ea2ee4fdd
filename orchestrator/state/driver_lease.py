"""The lease of a sweep's only driver: a lock of the file system, or a file that is renewed if there are no locks.

A lock ends with its process. Object stores and some NFS have none; there the lease is driver.json:

1. Read the file. If it names a live driver, give up.
2. Write it with a random token, and wait `settle_s` (LeaseTimes), longer than reading and writing may take.
3. Read it back. Whoever finds the same token holds the lease, and renews it every `renew_interval_s`.

A write that took longer may have replaced the file of a driver that holds the lease by now. The holder restores its file once,
and the late one waits for that before it reads again.

Limits: a holder that was silent for LEASE_TTL_S and comes back drives beside its successor until its next renewal or request to
the store; meanwhile attempts keep their trials apart (storage/layout.py). If the clocks of two hosts differ by about
LEASE_TTL_S, a live driver looks dead.
"""

from __future__ import annotations

import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from orchestrator.errors import EXIT_ENVIRONMENT, with_code
from orchestrator.storage.background import run_with_timeout
from orchestrator.storage.base import Storage
from trainables.errors import StorageError

LEASE_TTL_S = 30.0  # without a heartbeat, for a driver whose process cannot be seen from this host
MAX_TRIES = 5

LEASE_FILES = ("driver.lock", "driver.json")
HOLDER_FIELDS = ("owner", "pid", "host", "heartbeat")

DriverRecord = dict[str, Any]  # identifies a driver by host and process, with its heartbeat


@dataclass(frozen=True, kw_only=True, slots=True)
class LeaseTimes:
    """Seconds of the steps of a lease; all drivers of a storage must have equal ones.

    Attributes:
        release_timeout_s: for each of two steps, if the storage hangs.
    """

    settle_s: float = 2.0
    renew_interval_s: float = 10.0
    release_timeout_s: float = 3.0


LEASE_TIMES = LeaseTimes()


class LeaseHeldError(Exception):
    """Another process holds the lease; the message says which."""


@contextmanager
def driver_lease(
    storage: Storage,
    folder: str,
    this_driver: Callable[[], DriverRecord],
    alive: Callable[[DriverRecord], bool],
    times: LeaseTimes = LEASE_TIMES,
) -> Iterator[None]:
    """Holds the lease of the sweep in `folder` during the block.

    Raises:
        LeaseHeldError: another process holds it.
        StorageError: the storage is too slow for a lease.
    """
    with storage.try_lock(f"{folder}/driver.lock") as is_locked:
        if is_locked is False:
            raise LeaseHeldError("another process")
        if is_locked:
            yield
            return
        lease = _Lease(storage, f"{folder}/driver.json", this_driver, alive, times)
        lease.acquire()
        try:
            yield
        finally:
            lease.release()


def lease_holder(storage: Storage, folder: str, alive: Callable[[DriverRecord], bool]) -> str:
    """Who holds the lease of the sweep in `folder`, in words; empty if nobody does."""
    if storage.exists(f"{folder}/driver.lock"):  # else the look would create it
        with storage.try_lock(f"{folder}/driver.lock") as is_locked:
            if is_locked is not None:
                return "" if is_locked else "another process"
    holder = storage.read_json(f"{folder}/driver.json", fields=HOLDER_FIELDS)
    return _in_words(holder) if holder and alive(holder) else ""


def _in_words(holder: DriverRecord) -> str:
    age = time.time() - float(holder["heartbeat"])
    return f"process {holder['pid']} on {holder['host']}, last heartbeat {age:.0f} s ago"


class _Lease:
    def __init__(
        self,
        storage: Storage,
        name: str,
        this_driver: Callable[[], DriverRecord],
        alive: Callable[[DriverRecord], bool],
        times: LeaseTimes,
    ) -> None:
        self.storage = storage
        self.name = name
        self.this_driver = this_driver
        self.alive = alive
        self.times = times
        self.owner = secrets.token_hex(8)
        self.last_heartbeat = 0.0  # Unix time of the newest heartbeat that was written
        self.released = threading.Event()
        self.renewal = threading.Thread(target=self._renew, name="driver-lease", daemon=True)

    def acquire(self) -> None:
        self._write_unless_held()
        time.sleep(self.times.settle_s)
        self._require_no_other()
        self.renewal.start()

    def release(self) -> None:
        """Removes the file; if that is not possible now, the lease expires."""
        self.released.set()
        self.renewal.join(self.times.release_timeout_s)
        if not self.renewal.is_alive():  # else its write would land after the removal
            run_with_timeout(self.times.release_timeout_s, self._remove)

    def _remove(self) -> None:
        if self._other() is None:
            self.storage.remove(self.name)

    def _write_unless_held(self) -> None:
        """Reads and writes within `settle_s`; others that write meanwhile read back only after that."""
        for _ in range(MAX_TRIES):
            started = time.monotonic()
            self._require_no_other()
            self._write()
            if time.monotonic() - started < self.times.settle_s:
                return
            time.sleep(self.times.renew_interval_s + self.times.settle_s)  # for a holder whose file this replaced to restore it
        raise StorageError(
            f"storage {self.storage.root} takes longer than {self.times.settle_s:g} s to read and write {self.name}",
            "try again",
        )

    def _require_no_other(self) -> None:
        other = self._other()
        if other and self.alive(other):
            raise LeaseHeldError(_in_words(other))

    def _other(self) -> DriverRecord | None:
        holder: DriverRecord | None = self.storage.read_json(self.name, fields=HOLDER_FIELDS)
        return holder if holder and holder["owner"] != self.owner else None

    def _write(self) -> None:
        driver = self.this_driver()
        self.storage.write_json(self.name, driver | {"owner": self.owner})
        self.last_heartbeat = float(driver["heartbeat"])

    def _renew(self) -> None:
        """Ends this process if another one holds the lease, since it must write nothing more."""
        disputed = False
        while not self.released.wait(self.times.renew_interval_s):
            with suppress(StorageError):  # the next renewal may succeed in time
                other = self._other()
                if other and (disputed or _is_expired(self.last_heartbeat)):
                    _exit_without_lease(other)
                disputed = other is not None  # by a late write, whose writer gives up once our file is restored
                before = self.last_heartbeat
                self._write()
                if _is_expired(before):  # another driver may have started since the file was read
                    self.released.wait(self.times.renew_interval_s + self.times.settle_s)
                    if other := self._other():
                        _exit_without_lease(other)


def _is_expired(last_heartbeat: float) -> bool:
    """Whether another driver may take the lease."""
    return time.time() - last_heartbeat >= LEASE_TTL_S


def _exit_without_lease(holder: DriverRecord) -> NoReturn:
    message = (
        f"lost the driver lease to process {holder['pid']} on {holder['host']} (no heartbeat for {LEASE_TTL_S:g} s); exiting"
    )
    print(f"drive-sweep: {with_code(message, 'lease-lost')}", file=sys.stderr, flush=True)
    os._exit(EXIT_ENVIRONMENT)
