"""Small disks in memory, which really fill up and can be made read-only; a test is skipped where mounting is not permitted."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

READ_ONLY, REMOUNT, DETACH = 1, 32, 2  # flags of mount(2) and umount2(2)
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class SmallDisk:
    """A mounted disk."""

    folder: Path

    def resize(self, kibibytes: int) -> None:
        _mount(self.folder, REMOUNT, kibibytes)

    def make_read_only(self) -> None:
        _mount(self.folder, REMOUNT | READ_ONLY)

    def fill(self) -> None:
        """Takes all room that is left, in a file `filler`."""
        with open(self.folder / "filler", "wb", buffering=0) as file:
            try:
                while file.write(b"\0" * 4096):
                    continue
            except OSError:
                pass


@contextmanager
def small_disk(folder: Path, kibibytes: int, files: int | None = None) -> Iterator[SmallDisk]:
    """A disk of this size at the folder, which is created; with room for at most so many files and folders."""
    folder.mkdir(parents=True)
    try:
        _mount(folder, 0, kibibytes, files)
    except PermissionError as error:
        pytest.skip(f"no file system can be mounted here: {error.strerror}")
    try:
        yield SmallDisk(folder)
    finally:
        _libc.umount2(os.fsencode(folder), DETACH)


def _mount(folder: Path, flags: int, kibibytes: int | None = None, files: int | None = None) -> None:
    limits = ([f"size={kibibytes}k"] if kibibytes else []) + ([f"nr_inodes={files}"] if files else [])
    if _libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", ctypes.c_ulong(flags), ",".join(limits).encode()):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(folder))
