"""A storage that the program does not know: what a new scheme needs is one class and one entry of the table."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Self

from orchestrator.storage.base import FileInfo, Storage
from orchestrator.storage.local import LocalStorage
from orchestrator.uris import STORAGE_SCHEMES, StorageScheme

ROOT = "DRIVE_SWEEP_TOYS"  # variable that names the folder which holds all toy storages


class ToyStorage(Storage):
    """toy://NAME: files of this machine that are known by URI alone, without locks."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._files = LocalStorage(str(Path(os.environ[ROOT], root.removeprefix("toy://"))))

    @classmethod
    def open(cls, uri: str) -> Self:
        return cls(uri)

    def validate(self) -> None:
        self._files.validate()

    def read(self, name: str, offset: int = 0) -> bytes | None:
        return self._files.read(name, offset)

    def write(self, name: str, content: bytes, before_publish: Callable[[], None] = lambda: None) -> None:
        self._files.write(name, content, before_publish)

    def append(self, name: str, text: str) -> None:
        self._files.append(name, text)

    def append_durably(self, name: str, text: str) -> None:
        self._files.append_durably(name, text)

    def flush(self) -> None:
        self._files.flush()

    def remove(self, name: str) -> None:
        self._files.remove(name)

    def exists(self, name: str) -> bool:
        return self._files.exists(name)

    def poll_exists(self, name: str) -> bool:
        return self._files.poll_exists(name)

    def names(self, folder: str) -> list[str]:
        return self._files.names(folder)

    def files(self, folder: str) -> dict[str, FileInfo]:
        return self._files.files(folder)

    def modified(self, name: str) -> float:
        return self._files.modified(name)

    def move_folder(self, source: str, target: str) -> None:
        self._files.move_folder(source, target)

    def remove_folder(self, folder: str) -> None:
        self._files.remove_folder(folder)

    def local_copy(self, name: str) -> AbstractContextManager[Path | None]:
        return self._files.local_copy(name)

    @contextmanager
    def try_lock(self, name: str) -> Iterator[bool | None]:
        yield None


SCHEME = StorageScheme("toy://NAME", f"{__name__}:{ToyStorage.__name__}")


def register() -> None:
    STORAGE_SCHEMES["toy"] = SCHEME
