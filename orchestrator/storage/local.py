"""A folder as a storage; all processes of a sweep must see it."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from orchestrator.storage.base import FileInfo, Storage
from orchestrator.storage.full_storage import storage_error
from trainables.errors import StorageError
from trainables.runtime.cache_folder import cache_folder
from trainables.runtime.files import atomic_write


@dataclass(frozen=True, slots=True)
class LocalStorage(Storage):
    """A folder of this machine, or one that several share."""

    root: str

    @classmethod
    def open(cls, uri: str) -> Self:
        path = uri.partition("://")[2] if "://" in uri else uri
        return cls(str(Path(path).expanduser().absolute()))

    @property
    def folder(self) -> Path:
        return Path(self.root)

    def validate(self) -> None:
        """Nothing to check: folders are created when they are needed."""

    def path(self, name: str) -> Path:
        return Path(self.root, name)

    def read(self, name: str, offset: int = 0) -> bytes | None:
        with self._translate_errors(name, "read"):
            try:
                with open(self.path(name), "rb") as file:
                    file.seek(offset)
                    return file.read(self.bytes_to_read(name, max(0, os.fstat(file.fileno()).st_size - offset)))
            except (FileNotFoundError, NotADirectoryError):
                return None

    def write(self, name: str, content: bytes, before_publish: Callable[[], None] = lambda: None) -> None:
        path = self.path(name)
        with self._translate_errors(name, "written"):
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path, before_publish) as partial:
                partial.write_bytes(content)

    def append(self, name: str, text: str) -> None:
        with self._translate_errors(name, "written"):
            self.path(name).parent.mkdir(parents=True, exist_ok=True)
            with open(self.path(name), "a") as file:
                file.write(text)

    def append_durably(self, name: str, text: str) -> None:
        with self._translate_errors(name, "written"):
            self.path(name).parent.mkdir(parents=True, exist_ok=True)
            with open(self.path(name), "a+b") as file:
                _remove_partial_line(file)
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())

    def flush(self) -> None:
        """Nothing to do: appended text is already in the file."""

    def remove(self, name: str) -> None:
        with self._translate_errors(name, "removed"):
            self.path(name).unlink(missing_ok=True)

    def exists(self, name: str) -> bool:
        return self.path(name).is_file()

    def poll_exists(self, name: str) -> bool:
        return self.exists(name)

    def names(self, folder: str) -> list[str]:
        with self._translate_errors(folder, "read"):
            try:
                return sorted(name for name in os.listdir(self.path(folder)) if not name.startswith("."))
            except FileNotFoundError:
                return []

    def files(self, folder: str) -> dict[str, FileInfo]:
        found: dict[str, FileInfo] = {}
        for parent, _, names in os.walk(self.path(folder)):
            for path in (Path(parent, name) for name in names):
                with suppress(FileNotFoundError):  # removed since it was listed
                    facts = path.lstat()
                    found[path.relative_to(self.root).as_posix()] = FileInfo(facts.st_size, facts.st_mtime)
        return dict(sorted(found.items()))

    def modified(self, name: str) -> float:
        try:
            return self.path(name).stat().st_mtime
        except OSError:
            return 0.0

    def move_folder(self, source: str, target: str) -> None:
        with self._translate_errors(source, "moved"):
            self.path(target).parent.mkdir(parents=True, exist_ok=True)
            self.path(source).rename(self.path(target))

    def remove_folder(self, folder: str) -> None:
        with self._translate_errors(folder, "removed"), suppress(FileNotFoundError):
            shutil.rmtree(self.path(folder))

    @contextmanager
    def local_copy(self, name: str) -> Iterator[Path | None]:
        yield self.path(name) if self.exists(name) else None

    @contextmanager
    def try_lock(self, name: str) -> Iterator[bool | None]:
        path = self.path(name)
        with self._translate_errors(name, "written"):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = open(path, "w")  # noqa: SIM115
        with lock:
            yield _flock(lock.fileno())

    @contextmanager
    def _translate_errors(self, name: str, action: str) -> Iterator[None]:
        try:
            yield
        except StorageError:
            raise
        except OSError as error:
            raise storage_error(f"storage {self.root}: {name} cannot be {action}", error) from error


def node_cache() -> LocalStorage:
    """This machine's cache, for results that hold whichever storage a sweep uses."""
    return LocalStorage(str(cache_folder()))


def _flock(file: int) -> bool | None:
    """Whether this process has the lock now; None if the file system, such as some NFS, has no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _remove_partial_line(file: BinaryIO) -> None:
    """Truncates a text after its last whole line."""
    if file.seek(0, os.SEEK_END):
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
