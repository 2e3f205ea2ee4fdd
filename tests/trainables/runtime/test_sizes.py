"""Claimed sizes: refused before memory is taken."""

from __future__ import annotations

import struct

import pytest
import zstandard

from trainables.runtime import sizes
from trainables.runtime.machine import machine_memory
from trainables.runtime.sizes import OversizeError, require_room, unpack_zstd

CONTENT = bytes(range(256)) * 40
PACKED = zstandard.ZstdCompressor(write_checksum=True).compress(CONTENT)


@pytest.fixture
def small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "memory", lambda: 1 << 20)


def claiming(size: int) -> bytes:
    """A frame whose header claims a length: magic number, descriptor for 8 bytes with a checksum, length, one RLE block."""
    return b"\x28\xb5\x2f\xfd" + bytes([0xE4]) + struct.pack("<Q", size) + b"\x03\x00\x00a" + b"\0" * 4


def test_whole_frame_is_unpacked() -> None:
    assert unpack_zstd(PACKED, checksum=True) == unpack_zstd(PACKED, len(CONTENT)) == CONTENT


@pytest.mark.parametrize("size", [1 << 40, 1 << 62])
def test_frame_that_claims_what_it_cannot_hold_is_refused(size: int) -> None:
    with pytest.raises(OversizeError, match="claims"):
        unpack_zstd(claiming(size))


@pytest.mark.usefixtures("small_machine")
def test_bomb_is_refused_by_its_claim() -> None:
    bomb = zstandard.compress(bytes(2 << 20))
    assert len(bomb) < 200
    with pytest.raises(OversizeError, match="memory"):
        unpack_zstd(bomb)
    with pytest.raises(OversizeError, match="more than 100"):
        unpack_zstd(PACKED, 100)


def test_frames_without_checksum_or_length_and_damaged_ones_are_refused() -> None:
    stream = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    without_length = stream.compress(CONTENT) + stream.flush()
    for content in (
        zstandard.ZstdCompressor(write_checksum=False).compress(CONTENT),
        without_length,
        PACKED[:-1],
        PACKED + b"x",
        b"",
    ):
        with pytest.raises(ValueError):  # noqa: PT011
            unpack_zstd(content, checksum=True)


def test_room_is_the_memory_of_this_machine() -> None:
    require_room(1, "it")
    with pytest.raises(OversizeError, match=r"it takes .* GiB of memory, this machine has .* GiB"):
        require_room(machine_memory() + 1, "it")
