"""A disk that is full: the storage is on a small tmpfs, which something else fills. Needs root, else it never hits."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from functools import cache
from pathlib import Path

from tests.chaos.faults.fault import Fault, Hit, Scene, certain

BYTES = 64 << 20
BLOCK = b"\1" * 65536
SHORT_S = (0.5, 4.0)


def mount(folder: Path) -> None:
    """Makes the folder a small disk, if this user may."""
    folder.mkdir(parents=True)
    if can_mount():
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={BYTES}", "chaos", str(folder)], check=True)


def unmount(folder: Path) -> None:
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@cache
def can_mount() -> bool:
    """Whether this user may mount; tried in a mount namespace of its own."""
    try:
        tried = ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"]
        return os.geteuid() == 0 and subprocess.run(tried, check=False, capture_output=True).returncode == 0
    except OSError:
        return False


def _fill(scene: Scene) -> Hit | None:
    disk = scene.folder / "disk"
    if scene.driver.poll() is not None or not disk.is_mount():
        return None
    filler = disk / "filler"
    with open(filler, "ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(BLOCK)
    with open(filler, "ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"\1")
    scene.later(scene.draw.uniform(*SHORT_S), lambda: filler.unlink(missing_ok=True))
    return certain


NAME = "disk full"
FULL_DISKS = [Fault(name=NAME, inject=_fill, fits=lambda setting: setting.storage == "folder")]
