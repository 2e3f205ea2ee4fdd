"""The right to be a sweep's only driver: a lock of the file system, or a claim where there are no locks.

A lock ends with its process. Object stores have none, nor do some NFS; there a claim is a file that its holder writes anew
every LEASE_RENEW_S, and it counts as long as a driver that writes its state does. Of several that claim at once the last one to
write wins: each looks, writes, waits longer than a look and a write may take, and reads back whose claim it is. A write that
took longer may have landed on the claim of one who has the right by now: he puts his own back, once, and the late one waits for
that before he goes on.

What a claim cannot do: a holder that was silent for LEASE_TTL_S and is then heard of again drives beside his successor until
he looks, LEASE_RENEW_S or one request of the store later; trials are kept apart by their attempts meanwhile
(storage/layout.py). Clocks of hosts that differ by about LEASE_TTL_S make a living driver look dead.
"""

from __future__ import annotations

import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from orchestrator.errors import EXIT_ENVIRONMENT
from orchestrator.storage.background import run_with_timeout
from orchestrator.storage.base import Storage
from trainables.errors import StorageError

LEASE_SETTLE_S = 2.0
LEASE_RENEW_INTERVAL_S = 10.0
LEASE_TTL_S = 30.0  # without a heartbeat, for a driver whose process cannot be seen from here
RELEASE_TIMEOUT_S = 3.0  # for each of two steps, where the storage hangs
MAX_TRIES = 5

DriverRecord = dict[str, Any]  # what identifies a driver, with its host, process and heartbeat


class LeaseHeldError(Exception):
    """Somebody else has the right; the message says who."""


@contextmanager
def driver_lease(
    storage: Storage, folder: str, this_driver: Callable[[], DriverRecord], alive: Callable[[DriverRecord], bool]
) -> Iterator[None]:
    """The right to drive the sweep in `folder`, for as long as the block lasts.

    Raises:
        LeaseHeldError: another process has it.
        StorageError: the storage is so slow that a claim would prove nothing.
    """
    with storage.try_lock(f"{folder}/driver.lock") as ours:
        if ours is False:
            raise LeaseHeldError("another process")
        if ours:
            yield
            return
        claim = _Lease(storage, f"{folder}/driver.json", this_driver, alive)
        claim.take()
        try:
            yield
        finally:
            claim.release()


class _Lease:
    def __init__(
        self, storage: Storage, name: str, this_driver: Callable[[], DriverRecord], alive: Callable[[DriverRecord], bool]
    ) -> None:
        self.storage = storage
        self.name = name
        self.this_driver = this_driver
        self.alive = alive
        self.owner = secrets.token_hex(8)
        self.last_heartbeat = 0.0  # Unix time of the newest heartbeat that was written
        self.ended = threading.Event()
        self.renewal = threading.Thread(target=self._renew, name="claim", daemon=True)

    def take(self) -> None:
        self._write_unless_held()
        time.sleep(LEASE_SETTLE_S)
        self._refuse_other()
        self.renewal.start()

    def release(self) -> None:
        """A claim that cannot be removed now runs out."""
        self.ended.set()
        self.renewal.join(RELEASE_TIMEOUT_S)
        if not self.renewal.is_alive():  # else its writing would land after the removal
            run_with_timeout(RELEASE_TIMEOUT_S, self._remove)

    def _remove(self) -> None:
        if self._other() is None:
            self.storage.remove(self.name)

    def _write_unless_held(self) -> None:
        """Whoever wrote after our look reads back after our writing, if both took us less than CLAIM_S."""
        for _ in range(MAX_TRIES):
            begun = time.monotonic()
            self._refuse_other()
            self._write()
            if time.monotonic() - begun < LEASE_SETTLE_S:
                return
            time.sleep(LEASE_RENEW_INTERVAL_S + LEASE_SETTLE_S)  # until a holder whose claim this replaced has put it back
        raise StorageError(
            f"storage {self.storage.root} takes longer than {LEASE_SETTLE_S:g} s to read and write {self.name}", "try again"
        )

    def _refuse_other(self) -> None:
        other = self._other()
        if other and self.alive(other):
            age = time.time() - float(other["heartbeat"])
            raise LeaseHeldError(f"process {other['pid']} on {other['host']}, heard of {age:.0f} s ago")

    def _other(self) -> DriverRecord | None:
        claim: DriverRecord | None = self.storage.read_json(self.name, fields=("owner", "pid", "host", "heartbeat"))
        return claim if claim and claim["owner"] != self.owner else None

    def _write(self) -> None:
        driver = self.this_driver()
        self.storage.write_json(self.name, driver | {"owner": self.owner})
        self.last_heartbeat = float(driver["heartbeat"])

    def _renew(self) -> None:
        """Ends this process if another one has taken over: it must write nothing more."""
        disputed = False
        while not self.ended.wait(LEASE_RENEW_INTERVAL_S):
            with suppress(StorageError):  # the next time may be in time
                other = self._other()
                if other and (disputed or self._was_silent(self.last_heartbeat)):
                    _end(other)
                disputed = other is not None  # by a write that was late: its writer gives way once ours is back
                before = self.last_heartbeat
                self._write()
                if self._was_silent(before):  # what was read before the writing may have changed since
                    self.ended.wait(LEASE_RENEW_INTERVAL_S + LEASE_SETTLE_S)
                    other = self._other()
                    if other:
                        _end(other)

    def _was_silent(self, last_heartbeat: float) -> bool:
        """Whether somebody may rightly have taken over."""
        return time.time() - last_heartbeat >= LEASE_TTL_S


def _end(other: DriverRecord) -> NoReturn:
    print(
        f"drive-sweep: process {other['pid']} on {other['host']} has taken the sweep over while this one "
        "could not be heard of; this one ends",
        file=sys.stderr,
        flush=True,
    )
    os._exit(EXIT_ENVIRONMENT)
