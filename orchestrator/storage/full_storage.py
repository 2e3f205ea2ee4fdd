"""A storage that can take no more: which errors of a system say so, and how long a writer waits for room.

A full disk, a spent quota and a file system that became read-only are one kind, StorageFullError: trying again does not help
until somebody makes room. One short wait does help where the temporary file of another writer took the last room. The command
that such an error ends says what to do.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable

from trainables.errors import StorageError, StorageFullError

GRACE_S = 5.0  # from a write that found no room to the second and last try
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def storage_error(message: str, error: OSError) -> StorageError:
    """The error of a folder, by what the system says; its message is "MESSAGE: what the system says"."""
    text = f"{message}: {error.strerror or error}"
    if error.errno in FULL:
        return StorageFullError(text)
    return StorageError(text, "make it accessible, or give another folder with --storage")


def write_with_grace(write: Callable[[], None]) -> None:
    """Writes, and once more after GRACE_S if there was no room. Raises StorageFullError if there is none then."""
    try:
        write()
    except StorageFullError:
        time.sleep(GRACE_S)
        write()
