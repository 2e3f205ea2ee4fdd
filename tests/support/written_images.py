"""Small image files of every kind, written by PIL or assembled from their specifications."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[Any]
SIDE = 8
DRAW = np.random.default_rng(0)
GREY = DRAW.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
COLOUR = DRAW.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
ALPHA = DRAW.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
GREY16 = DRAW.integers(0, 1 << 16, (SIDE, SIDE), dtype=np.uint16)
COLOUR16 = DRAW.integers(0, 1 << 16, (SIDE, SIDE, 3), dtype=np.uint16)
GREY16[0, :4] = 0, 255, 256, 65535


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def rgb(grey: Any) -> Array:
    return np.repeat(np.asarray(grey, dtype=np.uint8)[:, :, None], 3, 2)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    values: Array,
    depth: int,
    colour_type: int,
    extra: bytes = b"",
    interlaced: bool = False,
    size: tuple[int, int] | None = None,
) -> bytes:
    """A PNG of values (H, W, channels), as its specification puts it together (ISO/IEC 15948)."""
    values = values.reshape(*values.shape[:2], -1)
    height, width = size or values.shape[:2]
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    parts = [values[row::down, column::right] for row, column, down, right in (passes if interlaced else [(0, 0, 1, 1)])]
    rows = b"".join(b"\0" + _packed(row.ravel(), depth) for part in parts if part.size for row in part)
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, interlaced)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _packed(row: Array, depth: int) -> bytes:
    if depth >= 8:
        return row.astype(f">u{depth // 8}").tobytes()
    bits = (row[:, None] >> np.arange(depth - 1, -1, -1)) & 1
    return np.packbits(bits.astype(np.uint8).ravel()).tobytes()


def palette(count: int) -> Array:
    return np.random.default_rng(count).integers(0, 256, (count, 3), dtype=np.uint8)


def paletted(bits: int, extra: bytes = b"") -> tuple[bytes, Array]:
    colours, index = palette(1 << bits), GREY >> (8 - bits)
    return png(index, bits, 3, chunk(b"PLTE", colours.tobytes()) + extra), colours[index]


def with_alpha(values: Array, alpha: Array) -> Array:
    return np.dstack([values, alpha])


def ppm(kind: str, values: Array, maximum: int) -> bytes:
    header = f"{kind}\n# a comment\n{values.shape[1]} {values.shape[0]}\n{maximum}\n".encode()
    if kind in ("P2", "P3"):
        return header + " ".join(str(value) for value in values.ravel()).encode()
    return header + values.astype(">u2" if maximum > 255 else "u1").tobytes()


def flat(colour: tuple[int, ...], mode: str = "RGB") -> Image.Image:
    return Image.new(mode, (SIDE, SIDE), colour)


def of(colour: tuple[int, int, int]) -> Array:
    return np.full((SIDE, SIDE, 3), colour, dtype=np.uint8)


def turned() -> bytes:
    """EXIF data that tell viewers to turn the image by 90 degrees."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()
