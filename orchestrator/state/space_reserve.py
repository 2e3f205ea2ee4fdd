"""Room that a sweep sets aside in a folder, so that its last state and log can be written when the disk is full.

A file of random bytes, which no file system stores more shortly. An object store has no such room, and a quota or a read-only
file system may leave none either: then state.json stays as it was.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass

from orchestrator.state.sweep_folder import RESERVE, SweepFolder
from trainables.errors import StorageError

MIN_BYTES = 64 * 1024
STATES = 2  # a state is written beside the one that it replaces


@dataclass(frozen=True, slots=True)
class SpaceReserve:
    """The reserve of one sweep's driver."""

    folder: SweepFolder

    def take(self, state_bytes: int) -> None:
        """Sets room aside for a state of this size and some log. Raises StorageFullError if there is none."""
        if self.folder.storage.folder is not None:
            self.folder.storage.write(self.folder.file(RESERVE), os.urandom(MIN_BYTES + STATES * state_bytes))

    def release(self) -> None:
        """Gives the room back; what a killed driver has left is replaced by the next one."""
        with suppress(StorageError):
            self.folder.storage.remove(self.folder.file(RESERVE))
