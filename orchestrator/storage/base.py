"""The interface of a storage: whole files, addressed by relative path.

A storage is small and picklable, and workers get a copy. A failure of the storage is a StorageError, which names it and says
how to fix it.

To add a kind of storage, write its class beside this file and add its scheme to STORAGE_SCHEMES in orchestrator/uris.py.
"""

from __future__ import annotations

import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from trainables.errors import StorageError
from trainables.records.self_digest import FIELD, is_whole, with_digest
from trainables.runtime.json_text import parse_json
from trainables.runtime.sizes import OversizeError, require_room


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What a listing says of a file.

    Attributes:
        modified: Unix time of the last change.
    """

    bytes: int
    modified: float


MOST_JSON_BYTES = 256 << 20  # of a record; the state of a sweep of 10,000 trials has about 10 MB


class Storage(ABC):
    """Whole files; a reader never sees half of one.

    Attributes:
        root: name of the storage in messages and for `--storage`: the folder, or the URI.
    """

    root: str

    @classmethod
    @abstractmethod
    def open(cls, uri: str) -> Self:
        """The storage at a URI that orchestrator/uris.py accepts. Raises StorageError if it cannot be found."""

    @property
    def folder(self) -> Path | None:
        """The local folder; None for an object store."""
        return None

    @abstractmethod
    def validate(self) -> None:
        """Raises StorageError if the folder or bucket that holds the storage does not exist."""

    @abstractmethod
    def read(self, name: str, offset: int = 0) -> bytes | None:
        """The content from `offset` on; None if there is no such file."""

    @abstractmethod
    def write(self, name: str, content: bytes, before_publish: Callable[[], None] = lambda: None) -> None:
        """Replaces the file atomically. `before_publish` may raise to leave it as it is."""

    @abstractmethod
    def append(self, name: str, text: str) -> None:
        """Adds to a text that only this process writes; an object store has it within seconds, or after `flush`."""

    @abstractmethod
    def append_durably(self, name: str, text: str) -> None:
        """Adds whole lines to a text that only this process writes; they are kept when it returns.

        What a crash left of a line at the end of the text is removed. Raises StorageError if the lines are not kept.
        """

    @abstractmethod
    def flush(self) -> None:
        """Writes what was appended so far, as far as possible within seconds."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Removes the file if it exists."""

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Whether there is a file of that name."""

    @abstractmethod
    def poll_exists(self, name: str) -> bool:
        """Whether an expected file exists, for frequent calls: an object store looks every few seconds, and never blocks the
        caller for more than one."""

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """Names in a folder, sorted, without those that start with a dot, such as files that are being written."""

    @abstractmethod
    def files(self, folder: str) -> dict[str, FileInfo]:
        """Path in the storage -> what is known, of every file in a folder and in those below it, hidden ones too; sorted."""

    @abstractmethod
    def modified(self, name: str) -> float:
        """Unix time of the file's last change; 0.0 if there is no such file."""

    @abstractmethod
    def move_folder(self, source: str, target: str) -> None:
        """Renames a folder with everything in it; the target must not exist."""

    @abstractmethod
    def remove_folder(self, folder: str) -> None:
        """Removes a folder with everything in it, if it exists."""

    @abstractmethod
    def local_copy(self, name: str) -> AbstractContextManager[Path | None]:
        """A local read-only file of the same name and content for the block; None if there is no such file."""

    @abstractmethod
    def try_lock(self, name: str) -> AbstractContextManager[bool | None]:
        """Whether this process has the lock of that name during the block; None where there are no locks."""

    def bytes_to_read(self, name: str, size: int) -> int:
        """How many of a file's bytes `read` returns: all; of a JSON file too large for a record the first ones, and its reader
        finds it damaged.

        Raises:
            StorageError: the file has more bytes than this machine has memory.
        """
        if name.endswith((".json", ".jsonl")):
            return min(size, MOST_JSON_BYTES)
        try:
            require_room(size, name)
        except OversizeError as error:
            raise StorageError(f"storage {self.root}: {error}", "use a machine with more, or move the file away") from error
        return size

    def read_json(self, name: str, fields: Sequence[str] = ()) -> Any:
        """The record in a JSON file; None if there is none, or if it is damaged, which is reported once.

        Args:
            fields: names that a whole record has.
        """
        content = self.read(name)
        value = _parsed(content)
        if not (isinstance(value, dict) and value.keys() >= set(fields)):
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
        """Writes a JSON file; a record gets a digest of itself, which `read_json` checks and removes."""
        self.write(name, json.dumps(with_digest(content) if isinstance(content, dict) else content, indent=1).encode())


def report_damage(storage: Storage, name: str) -> None:
    """Names a damaged file on stderr, once per process."""
    if (storage.root, name) not in _reported_damage:
        _reported_damage.add((storage.root, name))
        print(f"storage {storage.root}: {name} is damaged and not used", file=sys.stderr)


_reported_damage: set[tuple[str, str]] = set()


def _parsed(content: bytes | None) -> Any:
    """The value of a JSON file; None if it is not JSON, or a record that does not match its digest."""
    try:
        value = None if content is None else parse_json(content)
    except ValueError:
        return None
    if not isinstance(value, dict):
        return value
    return {name: field for name, field in value.items() if name != FIELD} if is_whole(value) else None
