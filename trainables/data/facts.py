"""What is known of a data set without its images: the shape that networks see, its classes, and how many images each has.

Splits are a function of these counts (split_counts.py), so keys and the checks of a plan need no image.
"""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from trainables.config.trial import IMAGE_SIDE
from trainables.custom.references import is_custom
from trainables.data import datasets
from trainables.data.readers import BROKEN_GZIP
from trainables.data.repeatability import cached_digest
from trainables.errors import DataError

IDX_LABELS = b"\x00\x00\x08\x01"  # magic number of a one-dimensional IDX file of uint8, as MNIST's page defines it
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True, kw_only=True, slots=True)
class DataFacts:
    """A data set in figures.

    Attributes:
        image_shape: channels, height and width of an image as networks see it.
        classes: name of every class, in the order of the labels.
        train_counts: images of each class in the training set, validation included.
        test_counts: images of each class in the test set.
        arrays_digest: of what a data function returned, see repeatability.py; None of any other data set.
    """

    image_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    train_counts: tuple[int, ...]
    test_counts: tuple[int, ...]
    arrays_digest: str | None = None

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(record: dict[str, Any]) -> DataFacts:
        channels, height, width = record["image_shape"]
        return DataFacts(
            image_shape=(channels, height, width),
            classes=tuple(record["classes"]),
            train_counts=tuple(record["train_counts"]),
            test_counts=tuple(record["test_counts"]),
            arrays_digest=record.get("arrays_digest"),
        )


DIGITS_FACTS = DataFacts(  # tests/trainables/data/test_facts.py compares it with the images themselves
    image_shape=(1, 8, 8),
    classes=tuple("0123456789"),
    train_counts=(143, 146, 142, 147, 145, 146, 145, 144, 140, 144),
    test_counts=(35, 36, 35, 36, 36, 36, 36, 35, 34, 36),
)


def quick_facts(source: datasets.DatasetSource) -> DataFacts | None:
    """The facts of a data set, from its file names and labels alone; None where they need the images to be decoded first.

    Raises:
        DataError: a file is missing or damaged.
    """
    if source.name == "digits":
        return DIGITS_FACTS
    if source.name in ("cifar10", "cifar100"):  # their reader takes the published files alone
        classes = CIFAR10_CLASSES if source.name == "cifar10" else _numbered(100)
        each = 50_000 // len(classes)
        return _facts((3, 32, 32), classes, [each] * len(classes), [each // 5] * len(classes))
    if source.name == "fashion_mnist":
        labels = {name: _idx_labels(path) for name, path in datasets.files(source) if "labels" in name}
        train, test = (_tally(labels[f"{split}-labels-idx1-ubyte"], 10) for split in ("train", "t10k"))
        return _facts((1, 28, 28), _numbered(10), train, test)
    if source.name == "image_folder":
        assert source.image_size is not None, "orchestrator/spec/loader.py asks for image_size"
        names = [name.split("/")[:2] for name, _ in datasets.files(source)]
        by_split = {split: Counter(parts[1] for parts in names if parts[0] == split) for split in ("train", "test")}
        classes = tuple(sorted(by_split["train"]))
        train, test = ([by_split[split][one] for one in classes] for split in ("train", "test"))
        return _facts((3, source.image_size, source.image_size), classes, train, test)
    if is_custom(source.name):
        file = datasets.cache_file(source)
        return decoded_facts(file) if datasets.is_whole(file) else None
    listing = datasets.listing(source)
    side = source.image_size or IMAGE_SIDE[source.name]
    train, test = (_tally(labels, len(listing.classes)) for labels in (listing.train_labels, listing.test_labels))
    return _facts((3, side, side), listing.classes, train, test)


def decoded_facts(cache: Path) -> DataFacts:
    """The facts of what a data function returned; a class has its label as its name."""
    from safetensors import safe_open

    with safe_open(cache, framework="numpy") as file:
        classes = _numbered(int(file.get_tensor("num_classes")))
        channels, height, width = file.get_slice("train_images").get_shape()[1:]
        train, test = (_tally(file.get_tensor(f"{split}_labels").tolist(), len(classes)) for split in ("train", "test"))
    facts = _facts((channels, height, width), classes, train, test)
    return replace(facts, arrays_digest=cached_digest(cache))


def _facts(shape: tuple[int, int, int], classes: tuple[str, ...], train: list[int], test: list[int]) -> DataFacts:
    return DataFacts(image_shape=shape, classes=classes, train_counts=tuple(train), test_counts=tuple(test))


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(str(label) for label in range(count))


def _tally(labels: Iterable[int], num_classes: int) -> list[int]:
    counts = Counter(labels)
    return [counts[label] for label in range(num_classes)]


def _idx_labels(path: Path) -> bytes:
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except BROKEN_GZIP as error:
        raise DataError(f"{str(path)!r} is damaged: {error}") from error
    labels = content[8:]
    if not content.startswith(IDX_LABELS) or len(labels) != int.from_bytes(content[4:8], "big") or max(labels, default=0) > 9:
        raise DataError(f"{str(path)!r} is damaged: it must be an IDX file of labels from 0 to 9; get it anew")
    return labels
