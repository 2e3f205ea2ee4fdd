"""The files of a storage, read and damaged behind the back of the code under test."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.support.s3_server import BUCKET, ObjectStore


class Records(Protocol):
    """All files below a storage, by name."""

    def names(self) -> list[str]: ...

    def read(self, name: str) -> bytes: ...

    def write(self, name: str, content: bytes) -> None: ...


@dataclass(frozen=True)
class FolderRecords:
    root: Path

    def names(self) -> list[str]:
        return sorted(path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file())

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def age(self, names: list[str], seconds: float) -> None:
        """Makes files as old as that."""
        for name in names:
            os.utime(self.root / name, times=(time.time() - seconds,) * 2)


@dataclass(frozen=True)
class ObjectRecords:
    store: ObjectStore
    prefix: str

    def names(self) -> list[str]:
        return sorted(key.removeprefix(f"{self.prefix}/") for key in self.store.objects(f"{self.prefix}/"))

    def read(self, name: str) -> bytes:
        return self.store.content(f"{self.prefix}/{name}")

    def write(self, name: str, content: bytes) -> None:
        self.store.client().put_object(Bucket=BUCKET, Key=f"{self.prefix}/{name}", Body=content)
