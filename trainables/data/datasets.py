"""Reads data sets as uint8 images, decoded once per node and kept in a cache file; lists and digests their files.

The signature of a source (paths, sizes and times of its files) names the cache file; its content digest (names, sizes and
contents) is part of trial keys, so that a moved copy gives the same keys. ImageNet is streamed (streaming.py), and its digest
covers only names and sizes, since reading 1.3 million files would take longer than many sweeps.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.custom.references import is_custom
from trainables.data.dataset import Files
from trainables.data.facts import DataFacts, decoded_facts
from trainables.data.file_digests import content_line, encoded_line, raw_content_line, size_line
from trainables.data.file_index import FileIndex
from trainables.data.image_files import SkippedFiles
from trainables.data.repeatability import HEADER, arrays_digest, cached_digest, require_same
from trainables.data.source import DatasetSource, readable
from trainables.data.table import dataset_of
from trainables.errors import DataError
from trainables.runtime.cache_folder import cache_folder as cache_folder
from trainables.runtime.files import atomic_write
from trainables.runtime.heartbeat import beat
from trainables.wording import one_line

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

LINES = {"content": content_line, "raw content": raw_content_line, "size": size_line}
# Version of reading image files and data functions; increased when any pixel changes, so that older caches are not used.
READING = 2
LOCK_POLL_S = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedDataset:
    """A decoded data set. Images are uint8 (N, C, H, W), labels int64 (N,) in [0, num_classes)."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    num_classes: int


def load(source: DatasetSource) -> DecodedDataset:
    """The decoded data set, from the cache if its files have not changed since.

    Raises:
        DataError: the folder or a file of it is missing or cannot be decoded.
    """
    from safetensors.torch import load_file

    # Even right after it was written the file is read, so that tensors have the same strides: kernels depend on them.
    tensors = load_file(source.decoded or decoded_file(source))
    num_classes = int(tensors.pop("num_classes"))
    return DecodedDataset(**tensors, num_classes=num_classes)


def decoded_file(source: DatasetSource) -> Path:
    """The node's cache file of the decoded data set, created if it is missing or incomplete.

    Raises:
        DataError: the folder or a file of it is missing or cannot be decoded.
        ChangedArraysError: a data function returns arrays that do not match `source.arrays_digest`; they are not cached.
    """
    download_if_missing(source)
    cache = cache_file(source)
    with cache_lock(cache):
        if not is_whole(cache):
            arrays, header = read(source), {}
            if is_custom(source.name):
                header = {HEADER: arrays_digest(arrays)}
                require_same(source.name, source.arrays_digest, header[HEADER])
            with atomic_write(cache) as partial:
                _save(arrays, partial, header)
        elif is_custom(source.name):
            require_same(source.name, source.arrays_digest, cached_digest(cache))
    return cache


def _save(arrays: dict[str, NDArray[Any]], file: Path, header: dict[str, str]) -> None:
    """Writes a safetensors file. Raises OSError with the system's number, which safetensors has in its message alone."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file(arrays, file, metadata=header or None)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


def cache_file(source: DatasetSource) -> Path:
    """Path of the decoded data set in the node's cache; it may not exist yet."""
    return cache_folder() / f"{source.name.replace(':', '-')[:150]}-{signature(source)}.safetensors"


def is_whole(cache: Path) -> bool:
    """Whether a cache file exists and has the length that its header declares."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(cache, framework="numpy"):  # compares the length of the file with its header
            return True
    except (SafetensorError, OSError):
        return False


def download_if_missing(source: DatasetSource) -> None:
    """Downloads the data set if its files are missing and `source.download` is set.

    Raises:
        DataError: it cannot be downloaded, or a file is still missing.
    """
    dataset = dataset_of(source.name)
    if source.root is not None and source.download and dataset.can_download:
        try:
            dataset.download(source.root)
        except (OSError, RuntimeError) as error:  # no network or no room, or what came is damaged
            reason = one_line(getattr(error, "reason", None) or error)
            raise DataError(
                f"{source.name} cannot be downloaded into dataset.root {source.root!r}: {reason}",
                "put its files there, or try again",
            ) from error
    files(source)


def files(source: DatasetSource) -> Files:
    """Name within the data set and path of every file of its content, sorted by name.

    Raises:
        DataError: the folder or a file of it is missing or cannot be read.
    """
    with readable(source):
        return dataset_of(source.name).files(source)


def file_index(source: DatasetSource) -> FileIndex:
    """The image files by split and class, for a data set with `has_image_files`.

    Raises:
        DataError: the folder is missing or has another layout.
    """
    return dataset_of(source.name).index(source)


def skipped(source: DatasetSource) -> tuple[SkippedFiles, ...]:
    """Files in the folders of a data set of image files that are not read, by reason; empty for other data sets.

    Raises:
        DataError: as `file_index`.
    """
    return file_index(source).skipped if dataset_of(source.name).has_image_files else ()


def quick_facts(source: DatasetSource) -> DataFacts | None:
    """The facts of a data set without decoding any image; None if images must be decoded first.

    Raises:
        DataError: a file is missing or damaged.
    """
    if is_custom(source.name):
        cache = cache_file(source)
        return decoded_facts(cache) if is_whole(cache) else None
    with readable(source):
        return dataset_of(source.name).facts(source)


def signature(source: DatasetSource) -> str:
    """32 hex digits over name, image size and the paths, sizes and times of the files; cheap, names the cache file.

    Raises:
        DataError: a file is missing.
    """
    version = f"/{READING}" if dataset_of(source.name).has_image_files or is_custom(source.name) else ""
    digest = hashlib.sha256(f"{source.name}/{source.image_size}{version}".encode())
    with readable(source):
        for name, path in files(source):
            status = path.stat()
            digest.update(encoded_line(f"{name}\0{path.absolute()}\0{status.st_size}\0{status.st_mtime_ns}"))
    return digest.hexdigest()[:32]


def content_digest(source: DatasetSource) -> str:
    """32 hex digits over the sorted names, sizes and contents of the files; reads every byte once.

    Names are those within the data set and compressed files count by their content, so that the same data in another folder
    or packed with gzip has the same digest. For ImageNet only names and sizes count: an image that is replaced by another of
    the same size goes unnoticed.

    Raises:
        DataError: a file is missing, or its compression is damaged.
    """
    dataset = dataset_of(source.name)
    if dataset.digest is not None:
        return dataset.digest
    line = LINES[dataset.digests]
    digest = hashlib.sha256()
    with ThreadPoolExecutor(max_workers=8) as pool, readable(source):
        for file_line in pool.map(line, files(source), chunksize=64):
            digest.update(file_line)
    return digest.hexdigest()[:32]


@contextmanager
def cache_lock(cache: Path) -> Iterator[None]:
    """Exclusive lock for writing a file of the node's cache; other processes of the node wait."""
    with open(cache.with_suffix(".lock"), "w") as lock:
        while True:  # the one that holds it may read a large data set, so waiting is work too
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                beat()
                time.sleep(LOCK_POLL_S)
        yield


def read(source: DatasetSource) -> dict[str, NDArray[Any]]:
    """The decoded data set by the field names of `DecodedDataset`, from its files.

    Raises:
        DataError: a file cannot be decoded, or the custom function fails.
    """
    import numpy as np

    arrays, num_classes = dataset_of(source.name).read(source)
    names = ("train_images", "train_labels", "test_images", "test_labels")
    contiguous = {name: np.ascontiguousarray(array) for name, array in zip(names, arrays, strict=True)}
    return contiguous | {"num_classes": np.array(num_classes)}
