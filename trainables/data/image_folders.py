"""Data sets with one file for each image: custom image folders, Tiny ImageNet and ImageNet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainables.data import file_index
from trainables.data.dataset import Arrays, Dataset, Files, ImageSizeRule
from trainables.data.decoding import decode_squares
from trainables.data.facts import DataFacts, facts_of, tally
from trainables.data.file_index import FileIndex
from trainables.data.source import DatasetSource, dataset_folder, readable


class ImageFolder(Dataset):
    name = "image_folder"
    description = "your images: `train/CLASS/*` and `test/CLASS/*`; `image_size` is required"
    images = "any, scaled to `image_size`"
    image_size: ImageSizeRule = "required"
    has_image_files = True
    index_folder: Callable[[Path], FileIndex] = staticmethod(file_index.image_folder)

    def files(self, source: DatasetSource) -> Files:
        return self.index(source).files()

    def index(self, source: DatasetSource) -> FileIndex:
        with readable(source):
            return self.index_folder(dataset_folder(source))

    def read(self, source: DatasetSource) -> Arrays:
        return decoded_images(self.index(source), self._side(source))

    def facts(self, source: DatasetSource) -> DataFacts | None:
        index, side = self.index(source), self._side(source)
        train, test = (tally(labels, len(index.classes)) for labels in (index.train_labels, index.test_labels))
        return facts_of((3, side, side), index.classes, train, test)

    def _side(self, source: DatasetSource) -> int:
        side = source.image_size or self.side
        assert side is not None, "the sweep file has image_size if it is required"
        return side


class TinyImagenet(ImageFolder):
    name = "tiny_imagenet"
    description = "the unpacked archive"
    images = "colour, 64 x 64"
    train_images = 100_000
    side = 64
    image_size = "refused"
    index_folder = staticmethod(file_index.tiny_imagenet)


class Imagenet(ImageFolder):
    name = "imagenet"
    description = "torchvision's layout: `train/WNID/*` and `val/WNID/*`; streamed"
    images = "colour, scaled to `image_size` (224)"
    train_images = 1_281_167
    side = 224
    image_size = "optional"
    is_streamed = True
    digests = "size"  # reading 1.3 million files would take longer than many sweeps
    index_folder = staticmethod(file_index.imagenet)


def decoded_images(index: FileIndex, size: int) -> Arrays:
    """The images of an index, scaled to size x size."""
    import numpy as np

    arrays: list[Any] = []
    for names, labels in ((index.train, index.train_labels), (index.test, index.test_labels)):
        images = decode_squares([index.root / name for name in names], size)
        arrays += [images, np.asarray(labels, dtype=np.int64)]
    return arrays, len(index.classes)
