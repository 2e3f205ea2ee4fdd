"""Facts of a data set besides its images: their shape, the classes, and the number of images of each class.

Splits are a function of these counts (split_counts.py), so trial keys and the checks of a plan need no image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from trainables.data.repeatability import cached_digest


@dataclass(frozen=True, kw_only=True, slots=True)
class DataFacts:
    """The shape and the class counts of a data set.

    Attributes:
        image_shape: channels, height and width of an image as networks see it.
        classes: name of every class, in the order of the labels.
        train_counts: images of each class in the training set, validation included.
        test_counts: images of each class in the test set.
        arrays_digest: of the arrays of a data function, see repeatability.py; None for any other data set.
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


def decoded_facts(cache: Path) -> DataFacts:
    """The facts of the arrays that a data function returned; classes are named by their labels."""
    from safetensors import safe_open

    with safe_open(cache, framework="numpy") as file:
        classes = numbered_classes(int(file.get_tensor("num_classes")))
        channels, height, width = file.get_slice("train_images").get_shape()[1:]
        train, test = (tally(file.get_tensor(f"{split}_labels").tolist(), len(classes)) for split in ("train", "test"))
    facts = facts_of((channels, height, width), classes, train, test)
    return replace(facts, arrays_digest=cached_digest(cache))


def facts_of(shape: tuple[int, int, int], classes: tuple[str, ...], train: list[int], test: list[int]) -> DataFacts:
    return DataFacts(image_shape=shape, classes=classes, train_counts=tuple(train), test_counts=tuple(test))


def numbered_classes(count: int) -> tuple[str, ...]:
    """The labels as names of classes that have no names."""
    return tuple(str(label) for label in range(count))


def tally(labels: Iterable[int], num_classes: int) -> list[int]:
    """Number of images of each class, by label."""
    counts = Counter(labels)
    return [counts[label] for label in range(num_classes)]
