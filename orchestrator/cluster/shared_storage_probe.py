"""Checks that every node sees the same storage: the driver and the nodes write files for each other."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from orchestrator.cluster.node_info import Problem
from orchestrator.storage.base import Storage
from trainables.errors import StorageError

VISIBILITY_TIMEOUT_S = 5.0  # NFS caches the content of a folder for 3 s
FOLDER = "doctor"
MOUNT_HINT = "mount the same folder"


@dataclass(frozen=True, kw_only=True)
class SharedStorageProbe:
    """The files of one check: one that the driver wrote, and one of every node.

    Attributes:
        visibility_timeout_s: for a file of another host to appear.
    """

    storage: Storage
    round: str
    content: bytes
    visibility_timeout_s: float = VISIBILITY_TIMEOUT_S

    @staticmethod
    def create(storage: Storage) -> SharedStorageProbe:
        """A probe whose driver file is written. Raises StorageError if that fails."""
        probe = SharedStorageProbe(storage=storage, round=secrets.token_hex(8), content=secrets.token_bytes(64))
        storage.write(probe.file("driver"), probe.content)
        return probe

    def file(self, writer: str) -> str:
        return f"{FOLDER}/{self.round}-{writer}"

    def check(self, name: str) -> Problem | None:
        """Why this process cannot use the storage as the driver does; None if it can. Writes the file of `name`."""
        root = self.storage.root
        try:
            content = self._wait_for("driver")
            if content is None:
                missing = f"storage {root} is a different folder on this node: the driver's probe file is missing"
                return Problem(missing, MOUNT_HINT)
            if content != self.content:
                return Problem(f"storage {root} has other content on this node than the driver wrote", MOUNT_HINT)
            self.storage.write(self.file(name), self.content)
        except StorageError as error:
            return Problem(error.message, "let trials read and write there, or take the node out of the cluster")
        return None

    def missing(self, names: Iterable[str], interrupted: Callable[[], bool] = lambda: False) -> set[str]:
        """The names whose files do not reach the driver; all are waited for at the same time."""
        deadline = time.monotonic() + self.visibility_timeout_s
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
        deadline = time.monotonic() + self.visibility_timeout_s
        while (content := self.storage.read(self.file(name))) is None and time.monotonic() < deadline:
            time.sleep(0.2)
        return content
