"""The files of a data set -> arrays: images uint8 (N, C, H, W) and labels int64 (N,), for training and for test.

Files are given as pairs of the name within the data set and its path. Heavy imports stay inside the readers.
"""

from __future__ import annotations

import gzip
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainables.data.decoding import decode_squares
from trainables.data.file_index import FileIndex
from trainables.errors import DataError

Files = list[tuple[str, Path]]
Parts = tuple[list[Any], int]  # train images, train labels, test images, test labels; number of classes
BROKEN_GZIP = (EOFError, gzip.BadGzipFile, zlib.error)


def read_digits() -> Parts:
    """scikit-learn's 1,797 digits of 8 x 8 in 0..16, scaled to 0..255; every fifth image of a class is a test image."""
    import numpy as np
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    labels = digits.target.astype(np.int64)
    rank_in_class = np.zeros(len(labels), dtype=np.int64)
    for label in range(10):
        rank_in_class[labels == label] = np.arange((labels == label).sum())
    test = rank_in_class % 5 == 4
    return [images[~test], labels[~test], images[test], labels[test]], 10


def read_cifar10(named: Files) -> Parts:
    from torchvision.datasets import CIFAR10

    return _cifar_parts(named, CIFAR10, "CIFAR-10"), 10


def read_cifar100(named: Files) -> Parts:
    """The 100 fine labels; the 20 coarse ones are not used."""
    from torchvision.datasets import CIFAR100

    return _cifar_parts(named, CIFAR100, "CIFAR-100"), 100


def _cifar_parts(named: Files, reader: Any, title: str) -> list[Any]:
    import numpy as np

    folder = named[0][1].parent
    with _laid_out(named, reader.base_folder) as root:
        try:
            splits = [reader(root, train=train) for train in (True, False)]
        except RuntimeError as error:
            raise DataError(f"{title} in {str(folder)!r} is damaged: {error}") from error
    parts: list[Any] = []
    for split in splits:
        parts += [split.data.transpose(0, 3, 1, 2), np.asarray(split.targets, dtype=np.int64)]
    return parts


def read_fashion_mnist(named: Files) -> Parts:
    from torchvision.datasets import FashionMNIST

    folder = named[0][1].parent
    try:
        with _laid_out(named, "FashionMNIST/raw") as root:
            splits = [FashionMNIST(root, train=train) for train in (True, False)]
        for split in splits:
            if len(split.data) != len(split.targets) or int(split.targets.max()) > 9:
                raise ValueError(f"{len(split.data)} images, {len(split.targets)} labels up to {int(split.targets.max())}")
    except (*BROKEN_GZIP, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:  # of its IDX parser
        raise DataError(f"Fashion-MNIST in {str(folder)!r} is damaged: {type(error).__name__} {error}") from error
    parts: list[Any] = []
    for split in splits:
        parts += [split.data[:, None], split.targets.long()]
    return parts, 10


@contextmanager
def _laid_out(named: Files, below: str) -> Iterator[str]:
    """A temporary folder in torchvision's layout, so that its readers take files from wherever the user has them."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root, below)
        folder.mkdir(parents=True)
        for name, path in named:
            if path.suffix == ".gz":
                with gzip.open(path) as packed, open(folder / name, "wb") as plain:
                    shutil.copyfileobj(packed, plain)
            else:
                (folder / name).symlink_to(path.absolute())
        yield root


def read_listing(listed: FileIndex, size: int) -> Parts:
    """The images of a listing, scaled to size x size."""
    import numpy as np

    parts: list[Any] = []
    for names, labels in ((listed.train, listed.train_labels), (listed.test, listed.test_labels)):
        images = decode_squares([listed.root / name for name in names], size)
        parts += [images, np.asarray(labels, dtype=np.int64)]
    return parts, len(listed.classes)


def download_cifar10(root: str) -> None:
    from torchvision.datasets import CIFAR10

    CIFAR10(Path(root).expanduser(), download=True)


def download_cifar100(root: str) -> None:
    from torchvision.datasets import CIFAR100

    CIFAR100(Path(root).expanduser(), download=True)


def download_fashion_mnist(root: str) -> None:
    from torchvision.datasets import FashionMNIST

    FashionMNIST(Path(root).expanduser(), download=True)


DOWNLOADS: dict[str, Callable[[str], None]] = {
    "cifar10": download_cifar10,
    "cifar100": download_cifar100,
    "fashion_mnist": download_fashion_mnist,
}
