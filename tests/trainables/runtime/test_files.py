"""Files that are written whole or not at all, and the metadata of safetensors files."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from tests.support.small_disks import small_disk
from trainables.runtime.files import atomic_write, safetensors_metadata


def test_atomic_write_replaces_the_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    for content in (b"first", b"second"):
        with atomic_write(file) as partial:
            partial.write_bytes(content)
        assert file.read_bytes() == content
    assert list(tmp_path.iterdir()) == [file]


def test_atomic_write_keeps_the_old_file_after_an_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"old")

    def fail_halfway() -> None:
        with atomic_write(file) as partial:
            partial.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_write_without_room_names_the_file(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", kibibytes=16) as disk:
        with pytest.raises(OSError, match="No space left on device") as raised, atomic_write(disk.folder / "file") as partial:
            partial.write_bytes(bytes(32 * 1024))
        assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(disk.folder / "file"))
        assert list(disk.folder.iterdir()) == []


def test_safetensors_metadata_is_what_was_saved() -> None:
    assert safetensors_metadata(save({"x": torch.zeros(1)}, {"key": "value"})) == {"key": "value"}


@pytest.mark.parametrize("content", [b"", b"not safetensors", save({"x": torch.zeros(1)})])
def test_safetensors_metadata_rejects_other_files(content: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        safetensors_metadata(content)
