"""Where files lie: whole files addressed by relative path, in a folder or in an object store (object_store.py).

A storage is small and picklable, and workers get a copy. What fails for reasons of the storage is a StorageError, which names
the storage and the way out.
"""

from __future__ import annotations

import json
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from trainables.errors import StorageError
from trainables.records.self_digest import FIELD, is_whole, sealed


def run_with_timeout(seconds: float, action: Callable[[], object]) -> None:
    """Does something whose failure changes nothing. Where the storage hangs it goes on in a thread that nobody waits for."""

    def attempt() -> None:
        with suppress(StorageError):
            action()

    thread = threading.Thread(target=attempt, name="storage", daemon=True)
    thread.start()
    thread.join(seconds)


class Storage(ABC):
    """Whole files; a reader never meets half of one.

    Attributes:
        root: how the storage is named in messages and by `--storage`: the folder, or the URI.
    """

    root: str

    @property
    def folder(self) -> Path | None:
        """The local folder; None for an object store."""
        return None

    @abstractmethod
    def validate(self) -> None:
        """Raises StorageError if what the storage should lie in is not there."""

    @abstractmethod
    def read(self, name: str, offset: int = 0) -> bytes | None:
        """The content from `offset` on, or None if there is no such file."""

    @abstractmethod
    def write(self, name: str, content: bytes, before_publish: Callable[[], None] = lambda: None) -> None:
        """Replaces the file at once. `before_publish` may raise to leave it as it is."""

    @abstractmethod
    def append(self, name: str, text: str) -> None:
        """Adds to a text that this process alone writes; an object store gets it within seconds, or by `flush`."""

    @abstractmethod
    def flush(self) -> None:
        """Puts in place what was appended so far, as far as possible within seconds."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Removes the file if it is there."""

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Whether there is a file of that name."""

    @abstractmethod
    def poll_exists(self, name: str) -> bool:
        """Whether a file that is waited for is there, to be asked often: an object store looks now and then,
        and is waited for no longer than a second."""

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """Names in a folder, sorted; those that begin with a dot, such as files that are being written, are left out."""

    @abstractmethod
    def modified(self, name: str) -> float:
        """Unix time of the file's last change; 0.0 if there is none."""

    @abstractmethod
    def move_folder(self, source: str, target: str) -> None:
        """Makes a folder with all that is in it another one, which is not there yet."""

    @abstractmethod
    def local_copy(self, name: str) -> AbstractContextManager[Path | None]:
        """A local file of the same name and content, not to be changed, while the block lasts; None if there is none."""

    @abstractmethod
    def try_lock(self, name: str) -> AbstractContextManager[bool | None]:
        """Whether this process has the lock of that name for as long as the block lasts; None where there are no locks."""

    def read_json(self, name: str, fields: Sequence[str] = ()) -> Any:
        """The content of a JSON file, or None if there is none, or it is not what was written, which is told once.

        Args:
            fields: that a record of this kind has.
        """
        content = self.read(name)
        value = _parsed(content)
        if fields and not (isinstance(value, dict) and value.keys() >= set(fields)):
            value = None
        if content is not None and value is None:
            report_damage(self, name)
        return value

    def read_all(self, names: Sequence[str]) -> list[bytes | None]:
        """`read` of many files, in their order."""
        return [self.read(name) for name in names]

    def read_all_json(self, names: Sequence[str]) -> list[Any]:
        """`read_json` of many files, in their order."""
        return [_parsed(content) for content in self.read_all(names)]

    def write_json(self, name: str, content: Any) -> None:
        """Writes a JSON file; a record gets a digest of itself, which `read_json` checks and leaves out."""
        self.write(name, json.dumps(sealed(content) if isinstance(content, dict) else content, indent=1).encode())


def report_damage(storage: Storage, name: str) -> None:
    """Names a damaged file on stderr, once in this process."""
    if (storage.root, name) not in _reported_damage:
        _reported_damage.add((storage.root, name))
        print(f"storage {storage.root}: {name} is damaged and not used", file=sys.stderr)


_reported_damage: set[tuple[str, str]] = set()


def _parsed(content: bytes | None) -> Any:
    """The value of a JSON file; None if it is no JSON, or a record that does not match its digest."""
    try:
        value = None if content is None else json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return value
    return {name: part for name, part in value.items() if name != FIELD} if is_whole(value) else None
