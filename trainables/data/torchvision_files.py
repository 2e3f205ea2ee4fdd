"""Finds published files of data sets, and presents them to torchvision's readers in the layout that they expect."""

from __future__ import annotations

import gzip
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from trainables.data.dataset import Files
from trainables.data.source import DatasetSource, dataset_folder
from trainables.errors import DataError

MOST_BYTES = 256 << 20  # of a published file; the largest, CIFAR-100's training images, has 148 MiB


def published_files(source: DatasetSource, names: Sequence[str], below: Sequence[str]) -> Files:
    """The files, plain or gzip, in one of the folders `below` the root or in the root; sorted by name.

    Raises:
        DataError: one is missing.
    """
    root = dataset_folder(source)
    folders = (*(root / folder for folder in below), root)
    files = []
    for name in names:
        paths = [folder / (name + suffix) for folder in folders for suffix in ("", ".gz")]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            hint = "give another folder" + ("" if source.download else ", or set dataset.download: true")
            raise DataError(f"dataset.root: {str(root)!r} has no file {name} of {source.name}", hint)
        files.append((name, path))
    return sorted(files)


@contextmanager
def torchvision_layout(files: Files, below: str) -> Iterator[str]:
    """A temporary folder with copies of the files in torchvision's layout; gzip files are unpacked.

    Copies, so that nobody can replace a file between torchvision's check of its MD5 and its unpickling.
    """
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root, below)
        folder.mkdir(parents=True)
        for name, path in files:
            (folder / name).write_bytes(published_content(path))
        yield root


def published_content(path: Path) -> bytes:
    """The content of a published file, plain or gzip.

    Raises:
        DataError: it is damaged, or larger than any published file.
        OSError: it cannot be read; the error names it.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            content = bytes(file.read(MOST_BYTES + 1))
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{str(path)!r} is damaged: {error}", "download it again") from error
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    if len(content) > MOST_BYTES:
        raise DataError(f"{str(path)!r} must have at most {MOST_BYTES >> 20} MiB, got more", "download it again")
    return content
