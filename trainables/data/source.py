"""The location of a data set's files on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trainables.errors import DataError


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetSource:
    """Where the images come from on this node; only name and image_size are part of the trial key.

    Attributes:
        decoded: file of the decoded images, on a node without the data set's files.
        arrays_digest: of the arrays that a data function returned when the sweep was planned; None before that.
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
        raise DataError("dataset.root is not set", f"data set {source.name!r} needs the folder that holds its files")
    root = Path(os.path.expanduser(source.root))
    if not root.is_dir():
        raise DataError(f"dataset.root: no folder {str(root)!r} on this machine", f"give the folder of {source.name}")
    return root


@contextmanager
def readable(source: DatasetSource) -> Iterator[None]:
    """Raises a DataError for a file or folder that cannot be read."""
    try:
        yield
    except OSError as error:
        path = str(error.filename or source.root)
        message = f"dataset.root: {path!r} must be readable, got: {error.strerror or error}"
        raise DataError(message, "repair it, or give another folder") from error
