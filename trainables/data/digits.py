"""The digits data set of scikit-learn, which comes with the program."""

from __future__ import annotations

from trainables.data.dataset import Arrays, Dataset
from trainables.data.facts import DataFacts
from trainables.data.source import DatasetSource

DIGITS_DIGEST = "0b7e9c3202d7bcd255d6a19a238d3743"  # a test compares it with the images
DIGITS_FACTS = DataFacts(  # tests/trainables/data/test_facts.py compares them with the images
    image_shape=(1, 8, 8),
    classes=tuple("0123456789"),
    train_counts=(143, 146, 142, 147, 145, 146, 145, 144, 140, 144),
    test_counts=(35, 36, 35, 36, 36, 36, 36, 35, 34, 36),
)


class Digits(Dataset):
    name = "digits"
    description = "comes with scikit-learn; takes no `root`"
    images = "1,797 grey images of 8 x 8"
    side = 8
    takes_root = False
    is_augmented = False  # flips and crops can turn a digit into another
    digest = DIGITS_DIGEST

    def read(self, source: DatasetSource) -> Arrays:
        return read_digits()

    def facts(self, source: DatasetSource) -> DataFacts | None:
        return DIGITS_FACTS


def read_digits() -> Arrays:
    """1,797 digits of 8 x 8 pixels, scaled from 0..16 to 0..255; every fifth image of a class is a test image."""
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
