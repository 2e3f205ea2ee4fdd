"""Splits of the digits: every image once, limits and validation balanced by class."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor

from trainables.config.trial import DatasetConfig
from trainables.data.datasets import content_digest, load
from trainables.data.source import DatasetSource
from trainables.data.split_counts import equal_draw
from trainables.data.splits import load_data, stratified_indices
from trainables.errors import DataError

DIGITS = DatasetSource(name="digits")


def rows(images: Tensor) -> list[bytes]:
    return [image.numpy().tobytes() for image in images]


def test_digits_digest_is_the_hash_of_images_and_labels() -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * 255 / 16).astype(np.uint8)
    content = images.tobytes() + digits.target.astype(np.int64).tobytes()
    assert content_digest(DIGITS) == hashlib.sha256(content).hexdigest()[:32]


def test_digits_splits_cover_every_image_once() -> None:
    from sklearn.datasets import load_digits

    images = load(DIGITS)
    scaled = np.round(load_digits().images * 255 / 16).astype(np.uint8)
    ours = rows(images.train_images) + rows(images.test_images)
    assert Counter(ours) == Counter(image.tobytes() for image in scaled)
    per_class = Counter(load_digits().target.tolist())
    assert Counter(images.test_labels.tolist()) == {label: count // 5 for label, count in per_class.items()}
    assert images.num_classes == 10


def test_limit_is_class_balanced_with_a_fifth_of_test_images() -> None:
    data = load_data(DatasetConfig(name="digits", limit=203, validation=0.0), DIGITS, "cpu")
    counts = Counter(data.train.labels.tolist())
    assert sorted(counts.values()) == [20] * 7 + [21] * 3
    assert len(data.test) == 40
    assert set(Counter(data.test.labels.tolist()).values()) == {4}


def test_split_seed_decides_which_images() -> None:
    def chosen(split_seed: int) -> list[bytes]:
        config = DatasetConfig(name="digits", limit=100, validation=0.2, split_seed=split_seed)
        return rows(load_data(config, DIGITS, "cpu").train.images)

    first = chosen(0)
    load_data.cache_clear()
    assert first == chosen(0)
    assert first != chosen(1)


def test_validation_is_balanced_within_the_limit() -> None:
    whole = load_data(DatasetConfig(name="digits", limit=200, validation=0.0), DIGITS, "cpu")
    data = load_data(DatasetConfig(name="digits", limit=200, validation=0.25), DIGITS, "cpu")
    assert (len(data.train), len(data.validation)) == (150, 50)
    assert set(Counter(data.validation.labels.tolist()).values()) == {5}
    assert Counter(rows(data.train.images) + rows(data.validation.images)) == Counter(rows(whole.train.images))
    assert torch.equal(data.test.images, whole.test.images)


def test_limit_above_the_data_set_is_rejected() -> None:
    with pytest.raises(DataError, match=r"dataset\.limit asks for 1443 training images, the data set has 1442"):
        load_data(DatasetConfig(name="digits", limit=1443), DIGITS, "cpu")


def test_small_class_gives_all_its_images() -> None:
    labels = torch.tensor([0] * 10 + [1] * 2 + [2] * 10)
    chosen = stratified_indices(labels, equal_draw((10, 2, 10), 12), seed=0)
    assert Counter(labels[chosen].tolist()) == {0: 5, 1: 2, 2: 5}
    assert chosen.tolist() == sorted(set(chosen.tolist()))
