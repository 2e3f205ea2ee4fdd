"""Splits, batches and readers, on the digits and on small sets written by the tests in their true layouts."""

from __future__ import annotations

import gzip
import hashlib
import os
import pickle
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from trainables.config.keys import trial_key
from trainables.config.trial import DatasetConfig, TrialConfig
from trainables.data import datasets
from trainables.data.batches import evaluation_batches, scoring_batches, training_batches
from trainables.data.datasets import DatasetSource, content_digest, load, signature
from trainables.data.normalization import Normalization
from trainables.data.split_counts import equal_draw
from trainables.data.splits import PAD, Data, Split, load_data, measured_normalization, random_crop, stratified_indices
from trainables.errors import DataError
from trainables.runtime.cache_folder import cache_folder

DIGITS = DatasetSource(name="digits")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of the test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("DRIVE_SWEEP_CACHE", str(folder))
    return folder


def rows(images: Tensor) -> list[bytes]:
    return [image.numpy().tobytes() for image in images]


def identity_data(count: int = 12, augment: str = "crop_flip") -> Data:
    """Images whose every pixel is told apart, with a normalisation that changes nothing but the scale."""
    images = torch.arange(count * 3 * 4 * 5).remainder(251).to(torch.uint8).view(count, 3, 4, 5)
    train = Split(images=images, labels=torch.arange(count))
    plain = Normalization(mean=(0.0,) * 3, std=(1.0,) * 3)
    return Data(train=train, validation=train, test=train, normalization=plain, num_classes=count, augment=augment)


# The digits


def test_the_digits_constant_is_the_hash_of_images_and_labels() -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * 255 / 16).astype(np.uint8)
    content = images.tobytes() + digits.target.astype(np.int64).tobytes()
    assert content_digest(DIGITS) == hashlib.sha256(content).hexdigest()[:32]


def test_the_digits_splits_hold_every_image_once() -> None:
    from sklearn.datasets import load_digits

    images = load(DIGITS)
    scaled = np.round(load_digits().images * 255 / 16).astype(np.uint8)
    ours = rows(images.train_images) + rows(images.test_images)
    assert Counter(ours) == Counter(image.tobytes() for image in scaled)
    per_class = Counter(load_digits().target.tolist())
    assert Counter(images.test_labels.tolist()) == {label: count // 5 for label, count in per_class.items()}
    assert images.num_classes == 10


# Limit and validation


def test_a_limit_is_class_balanced_and_brings_a_fifth_of_test_images() -> None:
    data = load_data(DatasetConfig(name="digits", limit=203, validation=0.0), DIGITS, "cpu")
    counts = Counter(data.train.labels.tolist())
    assert sorted(counts.values()) == [20] * 7 + [21] * 3
    assert len(data.test) == 40
    assert set(Counter(data.test.labels.tolist()).values()) == {4}


def test_the_split_seed_decides_which_images() -> None:
    def chosen(split_seed: int) -> list[bytes]:
        config = DatasetConfig(name="digits", limit=100, validation=0.2, split_seed=split_seed)
        return rows(load_data(config, DIGITS, "cpu").train.images)

    first = chosen(0)
    load_data.cache_clear()
    assert first == chosen(0)
    assert first != chosen(1)


def test_validation_is_a_balanced_part_of_the_limited_training_set() -> None:
    whole = load_data(DatasetConfig(name="digits", limit=200, validation=0.0), DIGITS, "cpu")
    data = load_data(DatasetConfig(name="digits", limit=200, validation=0.25), DIGITS, "cpu")
    assert (len(data.train), len(data.validation)) == (150, 50)
    assert set(Counter(data.validation.labels.tolist()).values()) == {5}
    assert Counter(rows(data.train.images) + rows(data.validation.images)) == Counter(rows(whole.train.images))
    assert torch.equal(data.test.images, whole.test.images)


def test_a_limit_above_the_set_is_refused() -> None:
    with pytest.raises(DataError, match=r"dataset\.limit asks for 1443 training images, the data set has 1442"):
        load_data(DatasetConfig(name="digits", limit=1443), DIGITS, "cpu")


def test_a_short_class_gives_all_that_it_has() -> None:
    labels = torch.tensor([0] * 10 + [1] * 2 + [2] * 10)
    chosen = stratified_indices(labels, equal_draw((10, 2, 10), 12), seed=0)
    assert Counter(labels[chosen].tolist()) == {0: 5, 1: 2, 2: 5}
    assert chosen.tolist() == sorted(set(chosen.tolist()))


# Normalisation and batches


def test_normalisation_is_numpys_mean_and_deviation_of_the_images_that_are_trained_on() -> None:
    data = load_data(DatasetConfig(name="digits", limit=300), DIGITS, "cpu")
    pixels = data.train.images.numpy().astype(np.float64) / 255
    assert data.normalization.mean == pytest.approx((pixels.mean(),), abs=6e-7)
    assert data.normalization.std == pytest.approx((pixels.std(),), abs=6e-7)


def test_normalisation_is_per_channel_and_survives_an_empty_one() -> None:
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
def test_an_epoch_holds_every_image_at_most_once_and_only_whole_batches(augment: str) -> None:
    batches = list(training_batches(identity_data(11, augment), batch_size=4, seed=0, epoch=0))
    labels = torch.cat([labels for _, labels in batches]).tolist()
    assert [len(labels) for _, labels in batches] == [4, 4]
    assert len(set(labels)) == 8
    assert all(images.dtype == torch.float32 and images.shape == (4, 3, 4, 5) for images, _ in batches)


def test_without_augmentation_the_images_come_as_they_are() -> None:
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


def test_crops_and_flips_equal_a_loop_over_pixels() -> None:
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
def test_augmented_batches_hold_crops_of_their_images(augment: str, flips_seen: set[bool]) -> None:
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


def test_batches_follow_from_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[bytes]:
        return [images.numpy().tobytes() for images, _ in training_batches(identity_data(), 4, seed, epoch)]

    torch.manual_seed(0)
    first = order(0, 0)
    torch.manual_seed(1)
    assert order(0, 0) == first
    assert order(0, 1) != first
    assert order(1, 0) != first


def test_a_batch_larger_than_the_set_is_refused() -> None:
    with pytest.raises(DataError, match=r"training\.batch_size is 13, but there are only 12 training images"):
        next(training_batches(identity_data(), 13, seed=0, epoch=0))


def test_scoring_batches_are_disjoint_within_a_round_fresh_in_the_next_and_not_augmented() -> None:
    data = identity_data()
    rounds = [list(scoring_batches(data, 4, 3, seed=0, round_=round_)) for round_ in (1, 2)]
    for batches in rounds:
        assert sorted(torch.cat([labels for _, labels in batches]).tolist()) == list(range(12))
        for images, labels in batches:
            assert torch.equal((images * 255).round().to(torch.uint8), data.train.images[labels])
    assert [labels.tolist() for _, labels in rounds[0]] != [labels.tolist() for _, labels in rounds[1]]


def test_a_small_set_gives_scoring_batches_of_all_it_has() -> None:
    batches = list(scoring_batches(identity_data(), 50, 2, seed=0, round_=1))
    assert [sorted(labels.tolist()) for _, labels in batches] == [list(range(12))] * 2


def test_evaluation_sees_every_image_once_in_order() -> None:
    images = torch.zeros(1201, 1, 2, 2, dtype=torch.uint8)
    split = Split(images=images, labels=torch.arange(1201))
    batches = list(evaluation_batches(split, Normalization(mean=(0.0,), std=(1.0,))))
    assert [len(labels) for _, labels in batches] == [500, 500, 201]
    assert torch.cat([labels for _, labels in batches]).tolist() == list(range(1201))


def test_auto_augmentation_leaves_digits_alone(tmp_path: Path) -> None:
    assert load_data(DatasetConfig(name="digits"), DIGITS, "cpu").augment == "none"
    source = DatasetSource(name="image_folder", root=str(png_tree(tmp_path)), image_size=8)
    assert load_data(DatasetConfig(name="image_folder", image_size=8), source, "cpu").augment == "crop_flip"


# The cache


def test_the_cache_is_used_and_a_damaged_one_is_made_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load(DIGITS)
    (file,) = cache.glob("*.safetensors")
    content = file.read_bytes()

    real = datasets.read
    reads: list[str] = []

    def counted(source: DatasetSource) -> dict[str, Any]:
        reads.append(source.name)
        return real(source)

    monkeypatch.setattr(datasets, "read", counted)
    load(DIGITS)
    assert reads == []
    for damaged in (content[: len(content) // 2], content[:5], b""):
        file.unlink()  # the images loaded before are still mapped from it
        file.write_bytes(damaged)
        images = load(DIGITS)
        assert torch.equal(images.train_images, whole.train_images)
        assert torch.equal(images.test_labels, whole.test_labels)
        assert file.read_bytes() == content
    assert reads == ["digits"] * 3
    assert cache_folder() == cache


# image_folder


def png_tree(root: Path) -> Path:
    """Two classes; names sort apart from the order of writing; one image is not square, one file is no image."""
    for split, label, name, size, value in [
        ("train", "zebra", "b.png", (8, 8), 200),
        ("train", "zebra", "a.png", (8, 8), 100),
        ("train", "ant", "only.PNG", (16, 16), 50),
        ("test", "ant", "one.png", (24, 16), 10),
    ]:
        folder = root / split / label
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (value, 0, 255 - value)).save(folder / name, format="PNG")
    (root / "train" / "ant" / "notes.txt").write_text("not an image")
    return root


def test_an_image_folder_has_sorted_classes_and_scaled_images(tmp_path: Path) -> None:
    images = load(DatasetSource(name="image_folder", root=str(png_tree(tmp_path)), image_size=8))
    assert images.num_classes == 2
    assert images.train_labels.tolist() == [0, 1, 1]
    assert images.test_labels.tolist() == [0]
    assert images.train_images.shape == (3, 3, 8, 8)
    assert images.test_images.shape == (1, 3, 8, 8)
    for image, red in zip(images.train_images, (50, 100, 200), strict=True):
        assert torch.equal(image, torch.tensor([red, 0, 255 - red], dtype=torch.uint8).view(3, 1, 1).expand(3, 8, 8))


def test_a_wide_image_is_scaled_by_its_shorter_side_and_cut_in_the_middle(tmp_path: Path) -> None:
    png_tree(tmp_path)
    pixels = np.zeros((4, 12, 3), dtype=np.uint8)
    pixels[:, :4, 0], pixels[:, 4:8, 1], pixels[:, 8:, 2] = 255, 255, 255
    Image.fromarray(pixels).save(tmp_path / "test" / "ant" / "one.png")
    images = load(DatasetSource(name="image_folder", root=str(tmp_path), image_size=4))
    assert images.test_images[0].tolist() == [[[0] * 4] * 4, [[255] * 4] * 4, [[0] * 4] * 4]


def test_a_class_that_is_only_tested_is_refused(tmp_path: Path) -> None:
    png_tree(tmp_path)
    (tmp_path / "test" / "yak").mkdir()
    shutil.copy(tmp_path / "train" / "zebra" / "a.png", tmp_path / "test" / "yak")
    with pytest.raises(DataError, match=r"is of class 'yak', which has no images in .*train'; give"):
        load(DatasetSource(name="image_folder", root=str(tmp_path), image_size=8))


def test_a_file_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    png_tree(tmp_path)
    (tmp_path / "train" / "ant" / "broken.png").write_bytes(b"not a png")
    with pytest.raises(DataError, match=r"cannot decode .*broken\.png"):
        load(DatasetSource(name="image_folder", root=str(tmp_path), image_size=8))


def test_what_is_missing_is_refused_with_the_way_out(tmp_path: Path) -> None:
    def refusal(name: str, root: Path | None) -> str:
        with pytest.raises(DataError) as caught:
            load(DatasetSource(name=name, root=None if root is None else str(root), image_size=8))
        return str(caught.value)

    assert "dataset.root is not set; data set 'cifar10' needs the folder" in refusal("cifar10", None)
    missing = tmp_path / "missing"
    assert refusal("image_folder", missing) == (
        f"dataset.root: no folder {str(missing)!r} on this machine; give the folder of image_folder"
    )
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "has no folder 'train'; the layout is train/CLASS/image.png" in refusal("image_folder", empty)
    assert "has no file data_batch_1 of cifar10; or set dataset.download: true" in refusal("cifar10", empty)
    (empty / "train").mkdir()
    (empty / "test").mkdir()
    assert "no images in" in refusal("image_folder", empty)


def test_the_digest_is_of_the_content_and_not_of_the_place(tmp_path: Path) -> None:
    first = DatasetSource(name="image_folder", root=str(png_tree(tmp_path / "first")), image_size=8)
    second = DatasetSource(name="image_folder", root=str(tmp_path / "elsewhere" / "second"), image_size=8)
    shutil.copytree(tmp_path / "first", tmp_path / "elsewhere" / "second")
    assert content_digest(first) == content_digest(second)
    config = TrialConfig(dataset=DatasetConfig(name="image_folder", image_size=8), model="convnet")
    assert trial_key(config, content_digest(first)) == trial_key(config, content_digest(second))
    assert signature(first) != signature(second)

    image = tmp_path / "elsewhere" / "second" / "train" / "zebra" / "a.png"
    image.rename(image.with_name("c.png"))
    assert content_digest(first) != content_digest(second)
    image.with_name("c.png").rename(image)
    assert content_digest(first) == content_digest(second)
    shutil.copy(image.with_name("b.png"), image)
    assert content_digest(first) != content_digest(second)


def test_the_signature_changes_when_a_file_is_touched_the_digest_does_not(tmp_path: Path) -> None:
    source = DatasetSource(name="image_folder", root=str(png_tree(tmp_path)), image_size=8)
    before = signature(source), content_digest(source)
    assert (signature(source), content_digest(source)) == before
    os.utime(tmp_path / "train" / "zebra" / "a.png", ns=(1, 1))
    assert signature(source) != before[0]
    assert content_digest(source) == before[1]
    assert signature(DatasetSource(name="image_folder", root=str(tmp_path), image_size=16)) != signature(source)


# Fashion-MNIST and CIFAR-10


def idx(array: NDArray[np.uint8]) -> bytes:
    """The IDX format: two zero bytes, type 8 (uint8), number of dimensions, sizes big-endian, bytes."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.tobytes()


def fashion_files(folder: Path, packed: bool) -> dict[str, NDArray[np.uint8]]:
    draw = np.random.default_rng(0)
    arrays = {
        "train-images-idx3-ubyte": draw.integers(0, 256, (7, 28, 28), dtype=np.uint8),
        "train-labels-idx1-ubyte": draw.integers(0, 10, 7, dtype=np.uint8),
        "t10k-images-idx3-ubyte": draw.integers(0, 256, (3, 28, 28), dtype=np.uint8),
        "t10k-labels-idx1-ubyte": draw.integers(0, 10, 3, dtype=np.uint8),
    }
    folder.mkdir(parents=True)
    for name, array in arrays.items():
        path = folder / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(idx(array)) if packed else idx(array))
    return arrays


@pytest.mark.parametrize("below", ["FashionMNIST/raw", "raw", ""])
@pytest.mark.parametrize("packed", [True, False])
def test_fashion_mnist_is_read_from_its_true_files(tmp_path: Path, below: str, packed: bool) -> None:
    arrays = fashion_files(tmp_path / "set" / below, packed)
    images = load(DatasetSource(name="fashion_mnist", root=str(tmp_path / "set")))
    assert np.array_equal(images.train_images.numpy()[:, 0], arrays["train-images-idx3-ubyte"])
    assert images.train_labels.tolist() == arrays["train-labels-idx1-ubyte"].tolist()
    assert np.array_equal(images.test_images.numpy()[:, 0], arrays["t10k-images-idx3-ubyte"])
    assert images.test_labels.tolist() == arrays["t10k-labels-idx1-ubyte"].tolist()


def test_packing_with_gzip_does_not_change_the_digest(tmp_path: Path) -> None:
    fashion_files(tmp_path / "packed", packed=True)
    fashion_files(tmp_path / "plain", packed=False)
    packed, plain = (DatasetSource(name="fashion_mnist", root=str(tmp_path / part)) for part in ("packed", "plain"))
    assert content_digest(packed) == content_digest(plain)


def test_a_damaged_gzip_file_has_no_digest(tmp_path: Path) -> None:
    fashion_files(tmp_path / "set", packed=True)
    path = tmp_path / "set" / "train-images-idx3-ubyte.gz"
    for content in (path.read_bytes()[:100], b"not gzip at all"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz' is damaged"):
            content_digest(DatasetSource(name="fashion_mnist", root=str(tmp_path / "set")))


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize("left", [0, 2, 20])
def test_a_truncated_fashion_mnist_is_refused_with_its_folder(tmp_path: Path, packed: bool, name: str, left: int) -> None:
    fashion_files(tmp_path / "set", packed)
    path = tmp_path / "set" / (f"{name}.gz" if packed else name)
    path.write_bytes(path.read_bytes()[: min(left, path.stat().st_size - 1)])
    with pytest.raises(DataError, match=rf"Fashion-MNIST in '{tmp_path / 'set'}' is damaged"):
        load(DatasetSource(name="fashion_mnist", root=str(tmp_path / "set")))


def test_cifar10_with_other_content_than_the_published_is_refused_with_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        batch = {"data": draw.integers(0, 256, (2, 3072), dtype=np.uint8), "labels": [0, 1]}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    with pytest.raises(DataError, match=rf"CIFAR-10 in '{folder}' is damaged"):
        load(DatasetSource(name="cifar10", root=str(tmp_path)))
