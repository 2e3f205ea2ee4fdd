"""Data sets by name -> uint8 images, decoded once per node and kept in a cache file.

A source is a data set's name, its folder and image size. Its signature (paths, sizes and times of its files) names the
cache file; its content digest (names, sizes and contents) goes into trial keys, so a moved copy gives the same keys.
ImageNet is not decoded here: streaming.py reads its files batch by batch, and its digest is over names and sizes alone, since
reading 1.3 million files would take longer than many a sweep.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.config.trial import IMAGE_SIDE
from trainables.custom.references import is_custom
from trainables.data import file_index, readers
from trainables.data.custom_dataset import dataset_files, read_custom_dataset
from trainables.data.file_digests import content_line, encoded_line, raw_content_line, size_line
from trainables.data.file_index import FileIndex
from trainables.data.image_files import SkippedFiles
from trainables.data.repeatability import HEADER, arrays_digest, cached_digest, require_same
from trainables.errors import DataError
from trainables.runtime.cache_folder import cache_folder as cache_folder
from trainables.runtime.files import atomic_write

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

DIGITS_DIGEST = "0b7e9c3202d7bcd255d6a19a238d3743"  # a test compares it with the images themselves
FASHION_FILES = tuple(f"{split}-{kind}-ubyte" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))
CIFAR_FILES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")
CIFAR100_FILES = ("train", "test", "meta")
# Of image files and data functions; raised when pixels of any change, so that no cached images of an older version are used.
READING = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetSource:
    """Where the images come from on this node; apart from name and image_size nothing decides a number or is in a key.

    Attributes:
        decoded: file of the decoded images, on a node that has none of the data set's own.
        arrays_digest: of what a data function returned when the sweep was planned; None while it was not called.
    """

    name: str
    image_size: int | None = None
    root: str | None = None
    download: bool = False
    modules_path: str = "."
    decoded: str | None = None
    arrays_digest: str | None = None


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

    # From a file also right after it was made, so that all have tensors of the same strides: kernels are chosen by them.
    tensors = load_file(source.decoded or decoded_file(source))
    num_classes = int(tensors.pop("num_classes"))
    return DecodedDataset(**tensors, num_classes=num_classes)


def decoded_file(source: DatasetSource) -> Path:
    """The node's cache file of the decoded data set, made first if it is not there or not whole.

    Raises:
        DataError: the folder or a file of it is missing or cannot be decoded.
        ChangedArraysError: a data function returns other arrays than those of `source.arrays_digest`; no such file is kept.
    """
    download_if_missing(source)
    cache = cache_file(source)
    with cache_lock(cache):
        if not is_whole(cache):
            from safetensors.numpy import save_file

            arrays, header = read(source), {}
            if is_custom(source.name):
                header = {HEADER: arrays_digest(arrays)}
                require_same(source.name, source.arrays_digest, header[HEADER])
            with atomic_write(cache) as partial:
                save_file(arrays, partial, metadata=header or None)
        elif is_custom(source.name):
            require_same(source.name, source.arrays_digest, cached_digest(cache))
    return cache


def cache_file(source: DatasetSource) -> Path:
    """Where the node's cache keeps the decoded data set, once it was made."""
    return cache_folder() / f"{source.name.replace(':', '-')[:150]}-{signature(source)}.safetensors"


def is_whole(cache: Path) -> bool:
    """Whether a file of the cache is there and has the length that it says of itself."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(cache, framework="numpy"):  # compares the length of the file with its table of contents
            return True
    except (SafetensorError, OSError):
        return False


def download_if_missing(source: DatasetSource) -> None:
    """Downloads the data set if it was asked for and is missing.

    Raises:
        DataError: a file is missing; the message names the folder and the way out.
    """
    if source.name == "digits":
        return
    if source.root is not None and source.download and source.name in readers.DOWNLOADS:
        readers.DOWNLOADS[source.name](source.root)
    files(source)


def files(source: DatasetSource) -> list[tuple[str, Path]]:
    """Name within the data set and path of every file that decides its content, sorted by name.

    Raises:
        DataError: the folder or a file of it is missing or cannot be read.
    """
    if source.name == "digits":
        return []
    with _readable(source):
        return _files(source)


def _files(source: DatasetSource) -> list[tuple[str, Path]]:
    if is_custom(source.name):
        return dataset_files(source.name, source.root, source.modules_path)
    if source.name in _LISTINGS:
        return listing(source).files()
    root = _folder(source)
    names, folders = {
        "cifar10": (CIFAR_FILES, (root / "cifar-10-batches-py", root)),
        "cifar100": (CIFAR100_FILES, (root / "cifar-100-python", root)),
        "fashion_mnist": (FASHION_FILES, (root / "FashionMNIST" / "raw", root / "raw", root)),
    }[source.name]
    found = []
    for name in names:
        paths = [folder / (name + suffix) for folder in folders for suffix in ("", ".gz")]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            way_out = "" if source.download else "; or set dataset.download: true"
            raise DataError(f"dataset.root: {str(root)!r} has no file {name} of {source.name}{way_out}")
        found.append((name, path))
    return sorted(found)


def listing(source: DatasetSource) -> FileIndex:
    """The image files of an image folder, Tiny ImageNet or ImageNet with their classes.

    Raises:
        DataError: the folder is missing or its layout is another one.
    """
    with _readable(source):
        return _LISTINGS[source.name](_folder(source))


def skipped(source: DatasetSource) -> tuple[SkippedFiles, ...]:
    """What lies in the folders of a data set of image files and is not read, by reason; of other data sets nothing.

    Raises:
        DataError: as `listing`.
    """
    return listing(source).skipped if source.name in _LISTINGS else ()


def _folder(source: DatasetSource) -> Path:
    if source.root is None:
        raise DataError(f"dataset.root is not set; data set {source.name!r} needs the folder that holds its files")
    root = Path(os.path.expanduser(source.root))
    if not root.is_dir():
        raise DataError(f"dataset.root: no folder {str(root)!r} on this machine; give the folder of {source.name}")
    return root


@contextmanager
def _readable(source: DatasetSource) -> Iterator[None]:
    """Turns what the machine refuses to read into a DataError."""
    try:
        yield
    except OSError as error:
        place = str(error.filename or source.root)
        raise DataError(
            f"dataset.root: {place!r} must be readable, got: {error.strerror or error}; repair it, or give another folder"
        ) from error


def signature(source: DatasetSource) -> str:
    """32 hex digits over name, image size and the paths, sizes and times of the files; cheap, decides about the cache.

    Raises:
        DataError: a file is missing.
    """
    how = f"/{READING}" if source.name in _LISTINGS or is_custom(source.name) else ""
    digest = hashlib.sha256(f"{source.name}/{source.image_size}{how}".encode())
    with _readable(source):
        for name, path in files(source):
            status = path.stat()
            digest.update(encoded_line(f"{name}\0{path.absolute()}\0{status.st_size}\0{status.st_mtime_ns}"))
    return digest.hexdigest()[:32]


def content_digest(source: DatasetSource) -> str:
    """32 hex digits over the sorted names, sizes and contents of the files; reads every byte once.

    Names are those within the data set, and of a compressed file the content counts, so the same data under another
    path or packed with gzip has the same digest. Of ImageNet it is over names and sizes alone: an image that was replaced
    by another of the same size goes unnoticed.

    Raises:
        DataError: a file is missing, or its compression is damaged.
    """
    if source.name == "digits":
        return DIGITS_DIGEST
    line = size_line if source.name in STREAMED else raw_content_line if is_custom(source.name) else content_line
    digest = hashlib.sha256()
    with ThreadPoolExecutor(max_workers=8) as pool, _readable(source):
        for part in pool.map(line, files(source), chunksize=64):
            digest.update(part)
    return digest.hexdigest()[:32]


@contextmanager
def cache_lock(cache: Path) -> Iterator[None]:
    """The right to make a file of the node's cache, while other processes of the node wait."""
    with open(cache.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def read(source: DatasetSource) -> dict[str, NDArray[Any]]:
    """The decoded data set by the names of `DecodedDataset`, from its files.

    Raises:
        DataError: a file of it cannot be decoded, or its function fails.
    """
    import numpy as np

    parts, num_classes = (
        read_custom_dataset(source.name, source.root, source.modules_path)
        if is_custom(source.name)
        else _READERS[source.name](source)
    )
    names = ("train_images", "train_labels", "test_images", "test_labels")
    arrays = {name: np.ascontiguousarray(part) for name, part in zip(names, parts, strict=True)}
    return arrays | {"num_classes": np.array(num_classes)}


def _image_folder(source: DatasetSource) -> readers.Parts:
    assert source.image_size is not None, "orchestrator/spec/loader.py asks for image_size"
    return readers.read_listing(listing(source), source.image_size)


_LISTINGS: dict[str, Callable[[Path], FileIndex]] = {
    "image_folder": file_index.image_folder,
    "tiny_imagenet": file_index.tiny_imagenet,
    "imagenet": file_index.imagenet,
}
_READERS: dict[str, Callable[[DatasetSource], readers.Parts]] = {
    "digits": lambda source: readers.read_digits(),
    "cifar10": lambda source: readers.read_cifar10(files(source)),
    "cifar100": lambda source: readers.read_cifar100(files(source)),
    "fashion_mnist": lambda source: readers.read_fashion_mnist(files(source)),
    "image_folder": _image_folder,
    "tiny_imagenet": lambda source: readers.read_listing(listing(source), IMAGE_SIDE["tiny_imagenet"]),
}
STREAMED = ("imagenet",)  # too large for a device: decoded batch by batch
DATASETS = (*_READERS, *STREAMED)
