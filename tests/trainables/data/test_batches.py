"""Seeded batches of training, scoring and evaluation, their normalisation and augmentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.support.dataset_folders import png_tree
from trainables.config.trial import DatasetConfig
from trainables.data.batches import evaluation_batches, scoring_batches, training_batches
from trainables.data.normalization import Normalization
from trainables.data.source import DatasetSource
from trainables.data.splits import PAD, Data, Split, load_data, measured_normalization, random_crop
from trainables.errors import DataError

DIGITS = DatasetSource(name="digits")


def rows(images: Tensor) -> list[bytes]:
    return [image.numpy().tobytes() for image in images]


def identity_data(count: int = 12, augment: str = "crop_flip") -> Data:
    """Images whose every pixel is told apart, with a normalisation that changes nothing but the scale."""
    images = torch.arange(count * 3 * 4 * 5).remainder(251).to(torch.uint8).view(count, 3, 4, 5)
    train = Split(images=images, labels=torch.arange(count))
    plain = Normalization(mean=(0.0,) * 3, std=(1.0,) * 3)
    return Data(train=train, validation=train, test=train, normalization=plain, num_classes=count, augment=augment)


def test_normalization_matches_numpy_on_the_training_images() -> None:
    data = load_data(DatasetConfig(name="digits", limit=300), DIGITS, "cpu")
    pixels = data.train.images.numpy().astype(np.float64) / 255
    assert data.normalization.mean == pytest.approx((pixels.mean(),), abs=6e-7)
    assert data.normalization.std == pytest.approx((pixels.std(),), abs=6e-7)


def test_normalization_is_per_channel_and_finite() -> None:
    images = torch.randint(0, 256, (5, 3, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    images[:, 1] = 0
    measured = measured_normalization(images)
    pixels = images.numpy().astype(np.float64) / 255
    assert measured.mean == pytest.approx(tuple(pixels.mean(axis=(0, 2, 3))), abs=6e-7)
    assert measured.std == pytest.approx((pixels[:, 0].std(), 1e-3, pixels[:, 2].std()), abs=6e-7)
    applied = measured.apply(images.float() / 255).double().numpy()
    expected = (pixels - pixels.mean(axis=(0, 2, 3)).reshape(1, 3, 1, 1)) / np.reshape(measured.std, (1, 3, 1, 1))
    np.testing.assert_allclose(applied, expected, atol=1e-5)


@pytest.mark.parametrize("augment", ["none", "crop", "crop_flip"])
def test_epoch_has_each_image_once_in_full_batches(augment: str) -> None:
    batches = list(training_batches(identity_data(11, augment), batch_size=4, seed=0, epoch=0))
    labels = torch.cat([labels for _, labels in batches]).tolist()
    assert [len(labels) for _, labels in batches] == [4, 4]
    assert len(set(labels)) == 8
    assert all(images.dtype == torch.float32 and images.shape == (4, 3, 4, 5) for images, _ in batches)


def test_batches_without_augmentation_keep_the_images() -> None:
    data = identity_data(augment="none")
    for images, labels in training_batches(data, 4, seed=0, epoch=0):
        assert torch.equal((images * 255).round().to(torch.uint8), data.train.images[labels])


def naive_crop(image: NDArray[np.uint8], top: int, left: int, flip: bool) -> NDArray[np.uint8]:
    """One image (C, H, W) after padding by PAD zeros, cutting at (top, left) and mirroring: pixel by pixel."""
    channels, height, width = image.shape
    out = np.zeros_like(image)
    for channel in range(channels):
        for row in range(height):
            for column in range(width):
                source_row = top + row - PAD
                source_column = left + (width - 1 - column if flip else column) - PAD
                if 0 <= source_row < height and 0 <= source_column < width:
                    out[channel, row, column] = image[channel, source_row, source_column]
    return out


def test_random_crop_equals_a_loop_over_pixels() -> None:
    data = identity_data()
    draw = torch.Generator().manual_seed(0)
    chosen = torch.randperm(12, generator=draw)
    offsets = torch.randint(0, 2 * PAD + 1, (12, 2), generator=draw)
    flips = torch.randint(0, 2, (12,), generator=draw)
    padded = torch.nn.functional.pad(data.train.images, (PAD,) * 4)
    batch = random_crop(padded, chosen, offsets, flips, 4, 5)
    for i in range(12):
        image = data.train.images[chosen[i]].numpy()
        expected = naive_crop(image, int(offsets[i, 0]), int(offsets[i, 1]), bool(flips[i]))
        assert np.array_equal(batch[i].numpy(), expected)


@pytest.mark.parametrize(("augment", "flips_seen"), [("crop", {False}), ("crop_flip", {False, True})])
def test_augmented_batches_are_crops_of_their_images(augment: str, flips_seen: set[bool]) -> None:
    data = identity_data(augment=augment)
    seen: set[tuple[int, int]] = set()
    mirrored: set[bool] = set()
    for epoch in range(3):
        for images, labels in training_batches(data, 4, seed=0, epoch=epoch):
            for image, label in zip((images * 255).round().to(torch.uint8).numpy(), labels.tolist(), strict=True):
                original = data.train.images[label].numpy()
                matches = [
                    (top, left, flip)
                    for top in range(2 * PAD + 1)
                    for left in range(2 * PAD + 1)
                    for flip in (False, True)
                    if np.array_equal(image, naive_crop(original, top, left, flip))
                ]
                assert matches
                if len(matches) == 1:
                    seen.add(matches[0][:2])
                    mirrored.add(matches[0][2])
    assert len(seen) > 10
    assert mirrored == flips_seen


def test_batches_depend_on_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[bytes]:
        return [images.numpy().tobytes() for images, _ in training_batches(identity_data(), 4, seed, epoch)]

    torch.manual_seed(0)
    first = order(0, 0)
    torch.manual_seed(1)
    assert order(0, 0) == first
    assert order(0, 1) != first
    assert order(1, 0) != first


def test_batch_larger_than_the_split_is_rejected() -> None:
    with pytest.raises(DataError, match=r"training\.batch_size is 13, but there are only 12 training images"):
        next(training_batches(identity_data(), 13, seed=0, epoch=0))


def test_scoring_batches_are_disjoint_within_a_round() -> None:
    data = identity_data()
    rounds = [list(scoring_batches(data, 4, 3, seed=0, round_=round_)) for round_ in (1, 2)]
    for batches in rounds:
        assert sorted(torch.cat([labels for _, labels in batches]).tolist()) == list(range(12))
        for images, labels in batches:
            assert torch.equal((images * 255).round().to(torch.uint8), data.train.images[labels])
    assert [labels.tolist() for _, labels in rounds[0]] != [labels.tolist() for _, labels in rounds[1]]


def test_scoring_batches_of_a_small_split_have_all_images() -> None:
    batches = list(scoring_batches(identity_data(), 50, 2, seed=0, round_=1))
    assert [sorted(labels.tolist()) for _, labels in batches] == [list(range(12))] * 2


def test_evaluation_covers_every_image_once_in_order() -> None:
    images = torch.zeros(1201, 1, 2, 2, dtype=torch.uint8)
    split = Split(images=images, labels=torch.arange(1201))
    batches = list(evaluation_batches(split, Normalization(mean=(0.0,), std=(1.0,))))
    assert [len(labels) for _, labels in batches] == [500, 500, 201]
    assert torch.cat([labels for _, labels in batches]).tolist() == list(range(1201))


def test_auto_augmentation_is_none_for_digits(tmp_path: Path) -> None:
    assert load_data(DatasetConfig(name="digits"), DIGITS, "cpu").augment == "none"
    source = DatasetSource(name="image_folder", root=str(png_tree(tmp_path)), image_size=8)
    assert load_data(DatasetConfig(name="image_folder", image_size=8), source, "cpu").augment == "crop_flip"
