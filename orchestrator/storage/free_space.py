"""What a file system still takes, as it says itself."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class FreeSpace:
    """Free bytes and files for this user; `files` is None where a file system has no limit, or does not say."""

    bytes: int
    files: int | None


def free_space(folder: Path) -> FreeSpace | None:
    """What is free in a folder, or where it would be created; None if the system does not say.

    Quotas of folders and projects are in the answer of most file systems (ext4, XFS, NFS), those of users are not.
    """
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        facts = os.statvfs(folder)
    except OSError:
        return None
    return FreeSpace(bytes=facts.f_bavail * facts.f_frsize, files=facts.f_favail if facts.f_files else None)
