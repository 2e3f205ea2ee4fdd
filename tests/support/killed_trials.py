"""What a kill or a full disk leaves of a trial: at one write, or at each of them in a single run."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.storage.local import LocalStorage
from trainables.runtime.files import atomic_write


class KilledError(BaseException):
    """Stands for the end of a process: nothing in the code under test may catch it."""


@dataclass
class Fuse:
    """Counts writes and removals, and burns at number `at`; the first is 1."""

    at: int = 0
    names: list[str] = field(default_factory=list)

    def burns(self, name: str) -> bool:
        self.names.append(name)
        return len(self.names) == self.at


@dataclass(frozen=True)
class MortalStorage(LocalStorage):
    """The real storage in a process that ends right after its fuse's write or removal."""

    fuse: Fuse = field(default_factory=Fuse)

    def write(self, name: str, content: bytes, before_publish: Any = lambda: None) -> None:
        super().write(name, content, before_publish)
        if self.fuse.burns(name):
            raise KilledError(name)

    def remove(self, name: str) -> None:
        super().remove(name)
        if self.fuse.burns(name):
            raise KilledError(name)

    def remove_folder(self, folder: str) -> None:
        for name in self.files(folder):
            self.remove(name)
        super().remove_folder(folder)


@dataclass(frozen=True)
class CopiedStorage(LocalStorage):
    """The real storage, copied at every write and removal as a kill at that moment leaves it.

    Attributes:
        copies: the folder of the copies.
        before: copy in the middle of a write, when half of the content lies under the temporary name, not right after it.
        changes: the files that were written or removed, in order.
    """

    copies: Path = Path()
    before: bool = False
    changes: list[str] = field(default_factory=list)

    def write(self, name: str, content: bytes, before_publish: Any = lambda: None) -> None:
        copy = self._copy(name) if self.before else None
        super().write(name, content, before_publish)
        if copy is None:
            self._copy(name)
        else:
            partial = (copy / name).with_name(f".{Path(name).name}.0-0.partial")
            partial.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(content[: len(content) // 2])

    def remove(self, name: str) -> None:
        if self.before:
            self._copy(name)
        super().remove(name)
        if not self.before:
            self._copy(name)

    def _copy(self, name: str) -> Path:
        self.changes.append(name)
        folder = self.copies / str(len(self.changes))
        self.folder.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copytree(self.folder, folder))

    def killed(self) -> list[LocalStorage]:
        """The copies, in order."""
        return [LocalStorage(str(self.copies / str(number))) for number in range(1, len(self.changes) + 1)]


@dataclass(frozen=True)
class FullStorage(LocalStorage):
    """The real storage on a disk without room from its fuse's write on: of each such file half is written, then none is.

    Removals need no room.
    """

    fuse: Fuse = field(default_factory=Fuse)

    def write(self, name: str, content: bytes, before_publish: Any = lambda: None) -> None:
        if self.fuse.burns(name) or len(self.fuse.names) > self.fuse.at:
            path = self.path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._translate_errors(name, "written"), atomic_write(path) as partial:
                partial.write_bytes(content[: len(content) // 2])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write(name, content, before_publish)
