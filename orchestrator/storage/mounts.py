"""The kind of file system that holds a folder."""

from __future__ import annotations

import re
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
NETWORK = re.compile(
    r"nfs\d?|cifs|smb\d?|smbfs|lustre|gpfs|beegfs|ceph|afs|9p|glusterfs|ocfs2|gfs2|fuse\.(?!overlayfs|ext).*|fuseblk"
)


def is_network_folder(folder: Path, mounts: str | None = None) -> bool:
    """Whether other hosts may write the folder's files too; false if the system does not say.

    Args:
        mounts: content of /proc/self/mountinfo (proc(5)), if it is not to be read.
    """
    if mounts is None:
        try:
            mounts = MOUNTS.read_text(errors="replace")
        except OSError:
            return False
    path = str(folder.resolve())
    kinds: dict[str, str] = {}
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        point = re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), fields.split()[4])
        if point == "/" or path == point or path.startswith(f"{point}/"):
            kinds[point] = rest.split()[0]
    return bool(kinds) and NETWORK.fullmatch(kinds[max(kinds, key=len)]) is not None
