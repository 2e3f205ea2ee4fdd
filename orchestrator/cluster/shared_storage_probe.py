"""Whether every node sees the same storage: files that the driver and the nodes write for each other."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from orchestrator.storage.base import Storage
from trainables.errors import StorageError

VISIBILITY_TIMEOUT_S = 5.0  # for a file of another host to come into sight: NFS remembers for 3 s what a folder holds
FOLDER = "doctor"


@dataclass(frozen=True, kw_only=True)
class SharedStorageProbe:
    """Files in the storage for one round of questions: one that the driver wrote, and one of every node."""

    storage: Storage
    round: str
    content: bytes

    @staticmethod
    def create(storage: Storage) -> SharedStorageProbe:
        """With the driver's file in it. Raises StorageError if the storage cannot be written."""
        probe = SharedStorageProbe(storage=storage, round=secrets.token_hex(8), content=secrets.token_bytes(64))
        storage.write(probe.file("driver"), probe.content)
        return probe

    def file(self, writer: str) -> str:
        return f"{FOLDER}/{self.round}-{writer}"

    def check(self, name: str) -> str:
        """Why this process cannot use the storage as the driver does; empty if it can. Leaves a file of its own."""
        root = self.storage.root
        try:
            read = self._wait_for("driver")
            if read is None:
                return f"storage {root} is another folder there: it has not the file that the driver wrote; mount the same one"
            if read != self.content:
                return f"storage {root} gives other content than the driver wrote; mount the same folder"
            self.storage.write(self.file(name), self.content)
        except StorageError as error:
            return f"{str(error).partition('; ')[0]}; let trials read and write there, or take the node out of the cluster"
        return ""

    def missing(self, names: Iterable[str], interrupted: Callable[[], bool] = lambda: False) -> set[str]:
        """Those under whose name the driver does not find what a process left; all are looked for at the same time."""
        deadline = time.monotonic() + VISIBILITY_TIMEOUT_S
        names = set(names)
        while names := {name for name in names if self.storage.read(self.file(name)) != self.content}:
            if time.monotonic() > deadline or interrupted():
                break
            time.sleep(0.2)
        return names

    def cleanup(self) -> None:
        for name in self.storage.names(FOLDER):
            if name.startswith(self.round):
                self.storage.remove(f"{FOLDER}/{name}")

    def _wait_for(self, name: str) -> bytes | None:
        deadline = time.monotonic() + VISIBILITY_TIMEOUT_S
        while (content := self.storage.read(self.file(name))) is None and time.monotonic() < deadline:
            time.sleep(0.2)
        return content
