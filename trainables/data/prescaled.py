"""Images of a streamed data set, decoded once per node, scaled down and kept as raw pixels in a few large files.

The shorter side of a kept image is that from which evaluation takes its center crop, so center crops have the pixels of the
original files; random crops come from the smaller image. A shard holds the pixels of consecutive images of a split, each uint8
(height, width, 3), then the table of their places, and the table's digest. Its name is a digest of the paths, sizes and times
of the original files, so changed images are decoded anew, and a build that was ended goes on with the next shard.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from trainables.data.datasets import READING, cache_lock
from trainables.data.decoding import image_header, rgb_image
from trainables.data.streaming import MAX_ASPECT_RATIO, scaled_size, shorter_side
from trainables.errors import DataError, WrongNodeError
from trainables.runtime.cache_folder import VARIABLE, cache_folder
from trainables.runtime.files import atomic_write
from trainables.runtime.heartbeat import beat
from trainables.runtime.machine import processors
from trainables.wording import size_text

if TYPE_CHECKING:
    from PIL.Image import Image

SHARD_IMAGES = 4096  # about 1 GiB at 256 pixels
SCALED_AT_ONCE = 64  # images in memory while a shard is written
SAMPLED = 100  # headers from which the size of all images follows
VERSION = 1  # increased when any kept pixel or the layout changes
PLACE = np.dtype([("shard", "<u4"), ("offset", "<u8"), ("height", "<u4"), ("width", "<u4"), ("crc", "<u4")])
DIGEST_BYTES = hashlib.sha256().digest_size


@dataclass(frozen=True, kw_only=True, slots=True)
class PrescaledImages:
    """Images of a split in shards.

    Attributes:
        shards: their files.
        places: (N,) of PLACE: the shard of each image, where its pixels begin, its size and the CRC-32 of its pixels.
    """

    shards: tuple[Path, ...]
    places: NDArray[np.void]

    def __len__(self) -> int:
        return len(self.places)

    def select(self, indices: Tensor | slice) -> PrescaledImages:
        return replace(self, places=self.places[indices if isinstance(indices, slice) else indices.numpy()])

    def image(self, index: int) -> Image:
        """The scaled image. Raises DataError if its pixels are not those that were written."""
        from PIL import Image

        place = self.places[index]
        shard, height, width = self.shards[place["shard"]], int(place["height"]), int(place["width"])
        try:
            with open(shard, "rb", buffering=0) as file:
                pixels = os.pread(file.fileno(), height * width * 3, int(place["offset"]))
        except OSError as error:
            raise DataError(f"the cache file {str(shard)!r} cannot be read: {error.strerror}", "run the sweep again") from error
        if len(pixels) != height * width * 3 or zlib.crc32(pixels) != place["crc"]:
            raise DataError(f"the cache file {str(shard)!r} is damaged", "remove it, it is written anew")
        return Image.frombuffer("RGB", (width, height), pixels, "raw", "RGB", 0, 1)


def prescaled_images(root: Path, names: Sequence[str], side: int) -> PrescaledImages:
    """The images of these files below root, from shards in the node's cache; missing and damaged shards are written first.

    Args:
        side: of the crops that will be taken.

    Raises:
        WrongNodeError: the cache has too little room, or cannot be written.
        DataError: a file cannot be read or decoded.
    """
    shorter = shorter_side(side)
    groups = [names[start : start + SHARD_IMAGES] for start in range(0, len(names), SHARD_IMAGES)]
    folder = cache_folder() / "prescaled"
    try:
        folder.mkdir(exist_ok=True)
        shards = [folder / f"{_signature(root, group, shorter)}.pixels" for group in groups]
        tables = [_read_table(shard, len(group)) for shard, group in zip(shards, groups, strict=True)]
        _require_room(
            folder,
            root,
            [name for group, table in zip(groups, tables, strict=True) if table is None for name in group],
            shorter,
        )
        for number, (shard, group) in enumerate(zip(shards, groups, strict=True)):
            if tables[number] is None:
                tables[number] = _built(shard, root, group, shorter)
    except OSError as error:
        raise WrongNodeError(
            f"dataset.prescaled: the cache cannot be written: {error.filename or folder}: {error.strerror or error}",
            f"free space there, or name another folder with {VARIABLE}",
        ) from error
    places = [table for table in tables if table is not None]
    for number, table in enumerate(places):
        table["shard"] = number
    return PrescaledImages(shards=tuple(shards), places=np.concatenate([np.empty(0, PLACE), *places]))


def _signature(root: Path, names: Sequence[str], shorter: int) -> str:
    """32 hex digits over what decides the content of a shard."""
    digest = hashlib.sha256(f"{VERSION}/{READING}/{shorter}".encode())
    for name in names:
        path = root / name
        try:
            status = path.stat()
        except OSError as error:
            raise DataError(f"dataset.root: {str(path)!r} must be readable, got: {error.strerror}", "repair it") from error
        digest.update(os.fsencode(f"\n{path.absolute()}\0{status.st_size}\0{status.st_mtime_ns}"))
    beat()
    return digest.hexdigest()[:32]


def _read_table(shard: Path, count: int) -> NDArray[np.void] | None:
    """The places of a shard's images; None if it is missing, or its length or its table is not as written."""
    table_bytes = count * PLACE.itemsize
    try:
        with open(shard, "rb") as file:
            length = os.fstat(file.fileno()).st_size
            file.seek(max(0, length - table_bytes - DIGEST_BYTES))
            content = file.read()
    except FileNotFoundError:
        return None
    encoded, digest = content[:table_bytes], content[table_bytes:]
    if hashlib.sha256(encoded).digest() != digest:
        return None
    table = np.frombuffer(encoded, PLACE).copy()
    last = table[-1]
    end = int(last["offset"]) + 3 * int(last["height"]) * int(last["width"])
    return table if end + table_bytes + DIGEST_BYTES == length else None


def _built(shard: Path, root: Path, names: Sequence[str], shorter: int) -> NDArray[np.void]:
    """The places of the images of a shard, written unless another process has done so meanwhile."""
    with cache_lock(shard):
        if (table := _read_table(shard, len(names))) is not None:
            return table
        for partial in shard.parent.glob(f".{shard.name}.*.partial"):  # of a process that was killed: 1 GiB each
            partial.unlink(missing_ok=True)
        with atomic_write(shard) as partial:
            return _write(partial, root, names, shorter)


def _write(file: Path, root: Path, names: Sequence[str], shorter: int) -> NDArray[np.void]:
    table = np.zeros(len(names), PLACE)
    offset = 0
    with open(file, "wb") as shard, ThreadPoolExecutor(max_workers=processors()) as pool:
        for start in range(0, len(names), SCALED_AT_ONCE):
            some = names[start : start + SCALED_AT_ONCE]
            for number, pixels in enumerate(pool.map(lambda name: _scaled(root / name, shorter), some), start):
                height, width = pixels.shape[:2]
                content = pixels.tobytes()
                table[number] = (0, offset, height, width, zlib.crc32(content))
                offset += shard.write(content)
            beat()
        encoded = table.tobytes()
        shard.write(encoded + hashlib.sha256(encoded).digest())
    return table


def _scaled(path: Path, shorter: int) -> NDArray[np.uint8]:
    """uint8 (height, width, 3)."""
    from PIL.Image import Resampling

    image = rgb_image(path)
    if max(image.size) > MAX_ASPECT_RATIO * min(image.size):
        raise DataError(
            f"dataset.prescaled: the longer side of {str(path)!r} must be at most {MAX_ASPECT_RATIO} times the shorter, got "
            f"{image.width} x {image.height}",
            "remove the image, or set dataset.prescaled: false",
        )
    return np.asarray(image.resize(scaled_size(image.size, shorter), Resampling.BILINEAR))


def _require_room(folder: Path, root: Path, names: Sequence[str], shorter: int) -> None:
    """Raises WrongNodeError if the scaled images of these files, by the headers of some of them, would not fit."""
    if not names:
        return
    needed = needed_bytes(root, names, shorter)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise WrongNodeError(
            f"dataset.prescaled: {folder} must have room for {len(names):,} scaled images: about {size_text(needed)}, got "
            f"{size_text(free)} free",
            f"free space there, name another folder with {VARIABLE}, or set dataset.prescaled: false",
        )


def needed_bytes(root: Path, names: Sequence[str], shorter: int) -> int:
    """Bytes of the scaled images of these files, by the headers of SAMPLED of them at even distances."""
    step = max(1, len(names) // SAMPLED)
    headers = [image_header(root / name) for name in names[::step]]
    sizes = [scaled_size((header.width, header.height), shorter) for header in headers]
    mean = sum(3 * width * height for width, height in sizes) / len(sizes)
    return round(len(names) * (mean + PLACE.itemsize))
