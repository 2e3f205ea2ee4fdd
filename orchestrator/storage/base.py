"""Where files lie: whole files addressed by relative path, in a folder or in an object store (object_store.py).

A storage is small and picklable, and workers get a copy. What fails for reasons of the storage is a StorageError, which names
the storage and the way out.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.errors import StorageError
from trainables.records.self_digest import FIELD, is_whole, sealed
from trainables.runtime.cache_folder import cache_folder


def try_for(seconds: float, act: Callable[[], object]) -> None:
    """Does something whose failure changes nothing. Where the storage hangs it goes on in a thread that nobody waits for."""

    def attempt() -> None:
        with suppress(StorageError):
            act()

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
    def check(self) -> None:
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
    def appeared(self, name: str) -> bool:
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
    def locked(self, name: str) -> AbstractContextManager[bool | None]:
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
            tell_damage(self, name)
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


def tell_damage(storage: Storage, name: str) -> None:
    """Names a damaged file on stderr, once in this process."""
    if (storage.root, name) not in _told_damage:
        _told_damage.add((storage.root, name))
        print(f"storage {storage.root}: {name} is damaged and not used", file=sys.stderr)


_told_damage: set[tuple[str, str]] = set()


def _parsed(content: bytes | None) -> Any:
    """The value of a JSON file; None if it is no JSON, or a record that does not match its digest."""
    try:
        value = None if content is None else json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return value
    return {name: part for name, part in value.items() if name != FIELD} if is_whole(value) else None


@dataclass(frozen=True, slots=True)
class LocalStorage(Storage):
    """A folder of this machine, or one that several share."""

    root: str

    @property
    def folder(self) -> Path:
        return Path(self.root)

    def check(self) -> None:
        """Nothing: a folder is made when it is needed."""

    def path(self, name: str) -> Path:
        return Path(self.root, name)

    def read(self, name: str, offset: int = 0) -> bytes | None:
        with self._named_trouble(name, "read"):
            try:
                with open(self.path(name), "rb") as file:
                    file.seek(offset)
                    return file.read()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def write(self, name: str, content: bytes, before_publish: Callable[[], None] = lambda: None) -> None:
        """Temporary name, fsync, rename."""
        path = self.path(name)
        partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
        with self._named_trouble(name, "written"):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with open(partial, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                before_publish()
                os.replace(partial, path)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise

    def append(self, name: str, text: str) -> None:
        with self._named_trouble(name, "written"):
            self.path(name).parent.mkdir(parents=True, exist_ok=True)
            with open(self.path(name), "a") as file:
                file.write(text)

    def flush(self) -> None:
        """Nothing: it is in place."""

    def remove(self, name: str) -> None:
        with self._named_trouble(name, "removed"):
            self.path(name).unlink(missing_ok=True)

    def exists(self, name: str) -> bool:
        return self.path(name).is_file()

    def appeared(self, name: str) -> bool:
        return self.exists(name)

    def names(self, folder: str) -> list[str]:
        with self._named_trouble(folder, "read"):
            try:
                return sorted(name for name in os.listdir(self.path(folder)) if not name.startswith("."))
            except FileNotFoundError:
                return []

    def modified(self, name: str) -> float:
        try:
            return self.path(name).stat().st_mtime
        except OSError:
            return 0.0

    def move_folder(self, source: str, target: str) -> None:
        with self._named_trouble(source, "moved"):
            self.path(target).parent.mkdir(parents=True, exist_ok=True)
            self.path(source).rename(self.path(target))

    @contextmanager
    def local_copy(self, name: str) -> Iterator[Path | None]:
        yield self.path(name) if self.exists(name) else None

    @contextmanager
    def locked(self, name: str) -> Iterator[bool | None]:
        path = self.path(name)
        with self._named_trouble(name, "written"):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = open(path, "w")  # noqa: SIM115
        with lock:
            yield _flocked(lock.fileno())

    @contextmanager
    def _named_trouble(self, name: str, doing: str) -> Iterator[None]:
        try:
            yield
        except StorageError:
            raise
        except OSError as error:
            raise StorageError(
                f"storage {self.root}: {name} cannot be {doing}: {error.strerror or error}; "
                "make room there, or give another folder with --storage"
            ) from error


def node_cache() -> LocalStorage:
    """This machine's cache, for what is worth remembering from one storage to another."""
    return LocalStorage(str(cache_folder()))


def _flocked(file: int) -> bool | None:
    """Whether the file is locked for us now; None where the file system, such as some NFS, has no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
