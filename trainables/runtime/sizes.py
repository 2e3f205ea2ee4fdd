"""Sizes that a file claims, checked before any memory is taken."""

from __future__ import annotations

from functools import cache

from trainables.runtime.machine import machine_memory, memory_limit

ZSTD_MOST = 1 << 15  # times its length: a block has 4 bytes or more, and at most 128 KiB of content (RFC 8878, 3.1.1.2)


@cache
def memory() -> int:
    """Bytes that this process may use."""
    return memory_limit() or machine_memory()


class OversizeError(ValueError):
    """The content is larger than it can be, or than this machine's memory."""


def require_room(size: int, name: str) -> None:
    """Raises OversizeError if this machine, or its container, has less memory than that many bytes."""
    if size > memory():
        raise OversizeError(f"{name} takes {_gib(size)} of memory, this machine has {_gib(memory())}")


def unpack_zstd(content: bytes, most: int | None = None, *, checksum: bool = False) -> bytes:
    """The content of a zstd frame, which must name its length.

    Args:
        most: bytes that it may have; None for as many as this machine has room for.
        checksum: the frame must have one, so that damage is an error.

    Raises:
        ValueError: it is no such frame, is damaged, or has more bytes.
    """
    import zstandard

    try:
        frame = zstandard.get_frame_parameters(content)
        if frame.content_size == zstandard.CONTENTSIZE_UNKNOWN or (checksum and not frame.has_checksum):
            raise ValueError("its zstd frame has no length or no checksum")
        if most is not None and frame.content_size > most:
            raise OversizeError(f"it unpacks to {frame.content_size} bytes, more than {most}")
        if frame.content_size > len(content) * ZSTD_MOST:
            raise OversizeError(f"it claims {frame.content_size} bytes, more than {len(content)} bytes can hold")
        require_room(frame.content_size, "it")
        return zstandard.ZstdDecompressor().decompress(content, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
