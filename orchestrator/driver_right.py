"""The right to be a sweep's only driver: a lock of the file system, or a claim where there are no locks.

A lock ends with its process. Object stores have none, nor do some NFS; there a claim is a file that its holder writes anew
every RENEW_S, and it counts as long as a driver that writes its state does. Of several that claim at once the last one to
write wins: each looks, writes, waits longer than a look and a write may take, and reads back whose claim it is.
Read by: state.py.
"""

from __future__ import annotations

import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from orchestrator.errors import EXIT_ENVIRONMENT
from orchestrator.storage import Storage
from trainables.failures import StorageError

CLAIM_S = 2.0
RENEW_S = 10.0
TRIES = 5

Driver = dict[str, Any]  # what identifies a driver, with its host, process and heartbeat


class HeldError(Exception):
    """Somebody else has the right; the message says who."""


@contextmanager
def sole_driver(
    storage: Storage, folder: str, this_driver: Callable[[], Driver], alive: Callable[[Driver], bool]
) -> Iterator[None]:
    """The right to drive the sweep in `folder`, for as long as the block lasts.

    Raises:
        HeldError: another process has it.
        StorageError: the storage is so slow that a claim would prove nothing.
    """
    with storage.locked(f"{folder}/driver.lock") as ours:
        if ours is False:
            raise HeldError("another process")
        if ours:
            yield
            return
        claim = _Claim(storage, f"{folder}/driver.json", this_driver, alive)
        claim.take()
        try:
            yield
        finally:
            claim.give_back()


class _Claim:
    def __init__(self, storage: Storage, name: str, this_driver: Callable[[], Driver], alive: Callable[[Driver], bool]) -> None:
        self.storage = storage
        self.name = name
        self.this_driver = this_driver
        self.alive = alive
        self.owner = secrets.token_hex(8)
        self.ended = threading.Event()
        self.renewal = threading.Thread(target=self._renew, name="claim", daemon=True)

    def take(self) -> None:
        self._write_unless_held()
        time.sleep(CLAIM_S)
        self._refuse_other()
        self.renewal.start()

    def give_back(self) -> None:
        self.ended.set()
        self.renewal.join()
        with suppress(StorageError):  # then it runs out
            self.storage.remove(self.name)

    def _write_unless_held(self) -> None:
        """Whoever wrote after our look reads back after our writing, if both took us less than CLAIM_S."""
        for _ in range(TRIES):
            begun = time.monotonic()
            self._refuse_other()
            self._write()
            if time.monotonic() - begun < CLAIM_S:
                return
        raise StorageError(
            f"storage {self.storage.root} takes longer than {CLAIM_S:g} s to read and write {self.name}; try again"
        )

    def _refuse_other(self) -> None:
        other = self._other()
        if other and self.alive(other):
            age = time.time() - float(other["heartbeat"])
            raise HeldError(f"process {other['pid']} on {other['host']}, heard of {age:.0f} s ago")

    def _other(self) -> Driver | None:
        claim: Driver | None = self.storage.read_json(self.name)
        return claim if claim and claim["owner"] != self.owner else None

    def _write(self) -> None:
        self.storage.write_json(self.name, self.this_driver() | {"owner": self.owner})

    def _renew(self) -> None:
        """Ends this process if it was silent for so long that another one has taken over: it must write nothing more."""
        while not self.ended.wait(RENEW_S):
            with suppress(StorageError):  # the next time may be in time
                other = self._other()
                if other:
                    print(
                        f"drive-sweep: process {other['pid']} on {other['host']} has taken the sweep over while this one "
                        "could not be heard of; this one ends",
                        file=sys.stderr,
                        flush=True,
                    )
                    os._exit(EXIT_ENVIRONMENT)
                self._write()
