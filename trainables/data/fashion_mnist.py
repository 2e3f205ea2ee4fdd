"""Fashion-MNIST, in the published IDX files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainables.data.dataset import Arrays, Dataset, Files
from trainables.data.facts import DataFacts, facts_of, numbered_classes, tally
from trainables.data.source import DatasetSource
from trainables.data.torchvision_files import published_content, published_files, torchvision_layout
from trainables.errors import DataError

FILES = tuple(f"{split}-{kind}-ubyte" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))
IDX_LABELS = b"\x00\x00\x08\x01"  # magic number of a one-dimensional IDX file of uint8, as MNIST's page defines it


class FashionMnist(Dataset):
    name = "fashion_mnist"
    description = "the usual IDX files, plain or gzip; `download: true` downloads them"
    images = "grey, 28 x 28"
    train_images = 60_000
    side = 28

    def files(self, source: DatasetSource) -> Files:
        return published_files(source, FILES, ["FashionMNIST/raw", "raw"])

    def read(self, source: DatasetSource) -> Arrays:
        from torchvision.datasets import FashionMNIST

        files = self.files(source)
        folder = files[0][1].parent
        try:
            with torchvision_layout(files, "FashionMNIST/raw") as root:
                splits = [FashionMNIST(root, train=train) for train in (True, False)]
            for split in splits:
                if len(split.data) != len(split.targets) or int(split.targets.max()) > 9:
                    raise ValueError(f"{len(split.data)} images, {len(split.targets)} labels up to {int(split.targets.max())}")
        except (AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:  # of its IDX parser
            raise DataError(f"Fashion-MNIST in {str(folder)!r} is damaged: {type(error).__name__} {error}") from error
        arrays: list[Any] = []
        for split in splits:
            arrays += [split.data[:, None], split.targets.long()]
        return arrays, 10

    def facts(self, source: DatasetSource) -> DataFacts | None:
        labels = {name: _idx_labels(path) for name, path in self.files(source) if "labels" in name}
        train, test = (tally(labels[f"{split}-labels-idx1-ubyte"], 10) for split in ("train", "t10k"))
        return facts_of((1, 28, 28), numbered_classes(10), train, test)

    def download(self, root: str) -> None:
        from torchvision.datasets import FashionMNIST

        FashionMNIST(Path(root).expanduser(), download=True)


def _idx_labels(path: Path) -> bytes:
    content = published_content(path)
    labels = content[8:]
    if not content.startswith(IDX_LABELS) or len(labels) != int.from_bytes(content[4:8], "big") or max(labels, default=0) > 9:
        raise DataError(f"{str(path)!r} is damaged: it must be an IDX file of labels from 0 to 9", "download it again")
    return labels
