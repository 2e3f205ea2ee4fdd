"""Finds published files of data sets, and presents them to torchvision's readers in the layout that they expect."""

from __future__ import annotations

import gzip
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from trainables.data.dataset import Files
from trainables.data.source import DatasetSource, dataset_folder
from trainables.errors import DataError

BROKEN_GZIP = (EOFError, gzip.BadGzipFile, zlib.error)


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
    """A temporary folder with links to the files in torchvision's layout; gzip files are unpacked."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root, below)
        folder.mkdir(parents=True)
        for name, path in files:
            if path.suffix == ".gz":
                with gzip.open(path) as packed, open(folder / name, "wb") as plain:
                    shutil.copyfileobj(packed, plain)
            else:
                (folder / name).symlink_to(path.absolute())
        yield root
