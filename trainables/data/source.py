"""Where the files of a data set are on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trainables.errors import DataError


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


def dataset_folder(source: DatasetSource) -> Path:
    if source.root is None:
        raise DataError(f"dataset.root is not set; data set {source.name!r} needs the folder that holds its files")
    root = Path(os.path.expanduser(source.root))
    if not root.is_dir():
        raise DataError(f"dataset.root: no folder {str(root)!r} on this machine; give the folder of {source.name}")
    return root


@contextmanager
def readable(source: DatasetSource) -> Iterator[None]:
    """Turns what the machine refuses to read into a DataError."""
    try:
        yield
    except OSError as error:
        place = str(error.filename or source.root)
        raise DataError(
            f"dataset.root: {place!r} must be readable, got: {error.strerror or error}; repair it, or give another folder"
        ) from error
