"""Which folders lie on a network, by the mounts of a machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.storage.mounts import is_network_folder


@pytest.mark.parametrize(
    ("kind", "network"),
    [("ext4", False), ("nfs4", True), ("cifs", True), ("fuse.sshfs", True), ("overlay", False), ("tmpfs", False)],
)
def test_the_longest_mount_decides_the_kind_of_file_system(kind: str, network: bool, tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    other = "nfs4" if not network else "ext4"
    escaped = str(folder).replace(" ", "\\040")
    mounts = f"1 0 8:1 / / rw - {other} /dev/sda1 rw\n2 1 0:5 / {escaped} rw,relatime shared:1 - {kind} host:/x rw\n"
    assert is_network_folder(folder / "runs", mounts) == network
    assert is_network_folder(tmp_path, mounts) != network
    assert not is_network_folder(folder, "")
