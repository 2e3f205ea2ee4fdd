"""CIFAR-10 and CIFAR-100, in the published Python files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainables.data.dataset import Arrays, Dataset, Files
from trainables.data.facts import DataFacts, facts_of, numbered_classes
from trainables.data.source import DatasetSource
from trainables.data.torchvision_files import published_files, torchvision_layout
from trainables.errors import DataError

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class Cifar10(Dataset):
    name = "cifar10"
    title = "CIFAR-10"
    description = "the usual Python files below `root`; `download: true` downloads them"
    images = "colour, 32 x 32"
    train_images = 50_000
    side = 32
    classes: tuple[str, ...] = CIFAR10_CLASSES
    file_names: tuple[str, ...] = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")
    folder = "cifar-10-batches-py"

    def files(self, source: DatasetSource) -> Files:
        return published_files(source, self.file_names, [self.folder])

    def read(self, source: DatasetSource) -> Arrays:
        import numpy as np

        reader, files = self._reader(), self.files(source)
        with torchvision_layout(files, self.folder) as root:
            try:
                splits = [reader(root, train=train) for train in (True, False)]
            except RuntimeError as error:
                folder = str(files[0][1].parent)
                raise DataError(f"{self.title} in {folder!r} is damaged: {error}", "download it again") from error
        arrays: list[Any] = []
        for split in splits:
            arrays += [split.data.transpose(0, 3, 1, 2), np.asarray(split.targets, dtype=np.int64)]
        return arrays, len(self.classes)

    def facts(self, source: DatasetSource) -> DataFacts | None:
        """The published numbers; the reader accepts only the published files."""
        each, count = self.train_images // len(self.classes), len(self.classes)
        return facts_of((3, 32, 32), self.classes, [each] * count, [each // 5] * count)

    def download(self, root: str) -> None:
        self._reader()(Path(root).expanduser(), download=True)

    def _reader(self) -> Any:
        from torchvision.datasets import CIFAR10

        return CIFAR10


class Cifar100(Cifar10):
    """CIFAR-100 with its 100 fine labels."""

    name = "cifar100"
    title = "CIFAR-100"
    classes = numbered_classes(100)
    file_names = ("train", "test", "meta")
    folder = "cifar-100-python"

    def _reader(self) -> Any:
        from torchvision.datasets import CIFAR100

        return CIFAR100
