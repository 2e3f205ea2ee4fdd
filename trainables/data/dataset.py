"""What there is to know about one data set: how it is read, and which keys of the sweep file it takes.

A data set is a subclass in a file of its own and an entry of table.py. Importing it loads no PyTorch and no decoder.
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
        description, images: what it is and its images, for the guide.
        side: pixels in a row of an image as networks see it; None where `dataset.image_size` says it.
        image_size: whether `dataset.image_size` is refused, required, or optional with `side` as its default.
        takes_root: whether it has files of its own, below `dataset.root`.
        is_augmented: whether `augment: auto` crops and flips its images.
        is_streamed: too large for a device, so it is decoded batch by batch (streaming.py).
        has_image_files: one file for each image, listed by `index`.
        digest: of the content, where it comes with the program.
        digests: what of each file its content digest covers; see file_digests.py.
    """

    name = ""
    description = ""
    images = ""
    side: int | None = None
    image_size: ImageSizeRule = "refused"
    takes_root = True
    is_augmented = True
    is_streamed = False
    has_image_files = False
    digest: str | None = None
    digests: Literal["content", "raw content", "size"] = "content"

    def files(self, source: DatasetSource) -> Files:
        """Name and path of every file that decides the content, sorted by name.

        Raises:
            DataError: a file is missing, or the layout is another one.
        """
        return []

    def read(self, source: DatasetSource) -> Arrays:
        """Images uint8 (N, C, H, W) and labels int64 (N,), for training and for test.

        Raises:
            DataError: a file cannot be decoded.
        """
        raise NotImplementedError

    def facts(self, source: DatasetSource) -> DataFacts | None:
        """The facts, from names of files and labels alone; None where they need the images to be decoded first.

        Raises:
            DataError: a file is missing or damaged.
        """
        return None

    def index(self, source: DatasetSource) -> FileIndex:
        """The image files by split and class, of a data set that has_image_files. Raises DataError as `files` does."""
        raise NotImplementedError

    def download(self, root: str) -> None:
        """Fetches the files into `root` where they are missing, of a data set that can_download."""

    @property
    def can_download(self) -> bool:
        return type(self).download is not Dataset.download
