"""The base class of data sets: how they are read, and which keys of the sweep file they take.

A data set is a subclass in a separate file and an entry in table.py. Importing it loads neither PyTorch nor a decoder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from trainables.data.facts import DataFacts
from trainables.data.file_index import FileIndex
from trainables.data.source import DatasetSource

ImageSizeRule = Literal["refused", "required", "optional"]
Files = list[tuple[str, Path]]  # name within the data set, and path
Arrays = tuple[list[Any], int]  # train images, train labels, test images, test labels; number of classes


class Dataset:
    """One data set.

    Attributes:
        name: as in the sweep file.
        description, images: the data set and its images, for the guide.
        side: side in pixels of an image as networks see it; None if `dataset.image_size` sets it.
        image_size: whether `dataset.image_size` is refused, required, or optional with `side` as its default.
        takes_root: whether it has files below `dataset.root`.
        train_images: published number of training images, validation included; None where the user's files decide it.
        is_augmented: whether `augment: auto` crops and flips its images.
        is_streamed: whether it is too large for a device and decoded batch by batch (streaming.py).
        has_image_files: whether it has one file for each image, listed by `index`.
        digest: of the content, for a data set that comes with the program.
        digests: what its content digest covers in each file; see file_digests.py.
    """

    name = ""
    description = ""
    images = ""
    side: int | None = None
    image_size: ImageSizeRule = "refused"
    takes_root = True
    train_images: int | None = None
    is_augmented = True
    is_streamed = False
    has_image_files = False
    digest: str | None = None
    digests: Literal["content", "raw content", "size"] = "content"

    def files(self, source: DatasetSource) -> Files:
        """Name and path of every file of the content, sorted by name.

        Raises:
            DataError: a file is missing, or the layout is wrong.
        """
        return []

    def read(self, source: DatasetSource) -> Arrays:
        """Images uint8 (N, C, H, W) and labels int64 (N,) of the training and the test set.

        Raises:
            DataError: a file cannot be decoded.
        """
        raise NotImplementedError

    def facts(self, source: DatasetSource) -> DataFacts | None:
        """The facts, from file names and labels alone; None if images must be decoded first.

        Raises:
            DataError: a file is missing or damaged.
        """
        return None

    def index(self, source: DatasetSource) -> FileIndex:
        """The image files by split and class, if `has_image_files`. Raises DataError as `files` does."""
        raise NotImplementedError

    def download(self, root: str) -> None:
        """Downloads missing files into `root`, if `can_download`."""

    @property
    def can_download(self) -> bool:
        return type(self).download is not Dataset.download
