"""Decoded data sets: the node's cache, image folders, digests and signatures."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.dataset_folders import png_tree
from trainables.config.keys import trial_key
from trainables.config.trial import DatasetConfig, TrialConfig
from trainables.data import datasets
from trainables.data.datasets import content_digest, load, signature
from trainables.data.source import DatasetSource
from trainables.errors import DataError
from trainables.runtime.cache_folder import cache_folder

DIGITS = DatasetSource(name="digits")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of the test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("DRIVE_SWEEP_CACHE", str(folder))
    return folder


def test_cache_is_reused_and_replaced_if_damaged(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_image_folder_has_sorted_classes_and_scaled_images(tmp_path: Path) -> None:
    images = load(DatasetSource(name="image_folder", root=str(png_tree(tmp_path)), image_size=8))
    assert images.num_classes == 2
    assert images.train_labels.tolist() == [0, 1, 1]
    assert images.test_labels.tolist() == [0]
    assert images.train_images.shape == (3, 3, 8, 8)
    assert images.test_images.shape == (1, 3, 8, 8)
    for image, red in zip(images.train_images, (50, 100, 200), strict=True):
        assert torch.equal(image, torch.tensor([red, 0, 255 - red], dtype=torch.uint8).view(3, 1, 1).expand(3, 8, 8))


def test_wide_image_is_scaled_and_center_cropped(tmp_path: Path) -> None:
    png_tree(tmp_path)
    pixels = np.zeros((4, 12, 3), dtype=np.uint8)
    pixels[:, :4, 0], pixels[:, 4:8, 1], pixels[:, 8:, 2] = 255, 255, 255
    Image.fromarray(pixels).save(tmp_path / "test" / "ant" / "one.png")
    images = load(DatasetSource(name="image_folder", root=str(tmp_path), image_size=4))
    assert images.test_images[0].tolist() == [[[0] * 4] * 4, [[255] * 4] * 4, [[0] * 4] * 4]


def test_class_without_training_images_is_rejected(tmp_path: Path) -> None:
    png_tree(tmp_path)
    (tmp_path / "test" / "yak").mkdir()
    shutil.copy(tmp_path / "train" / "zebra" / "a.png", tmp_path / "test" / "yak")
    with pytest.raises(DataError, match=r"is of class 'yak', which has no images in .*train'; give"):
        load(DatasetSource(name="image_folder", root=str(tmp_path), image_size=8))


def test_undecodable_file_is_named(tmp_path: Path) -> None:
    png_tree(tmp_path)
    (tmp_path / "train" / "ant" / "broken.png").write_bytes(b"not a png")
    with pytest.raises(DataError, match=r"cannot decode .*broken\.png"):
        load(DatasetSource(name="image_folder", root=str(tmp_path), image_size=8))


def test_missing_files_are_rejected_with_a_hint(tmp_path: Path) -> None:
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
    assert "has no file data_batch_1 of cifar10; give another folder, or set dataset.download: true" in refusal(
        "cifar10", empty
    )
    (empty / "train").mkdir()
    (empty / "test").mkdir()
    assert "no images in" in refusal("image_folder", empty)


def test_digest_covers_the_content_and_not_the_path(tmp_path: Path) -> None:
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


def test_signature_covers_modification_times(tmp_path: Path) -> None:
    source = DatasetSource(name="image_folder", root=str(png_tree(tmp_path)), image_size=8)
    before = signature(source), content_digest(source)
    assert (signature(source), content_digest(source)) == before
    os.utime(tmp_path / "train" / "zebra" / "a.png", ns=(1, 1))
    assert signature(source) != before[0]
    assert content_digest(source) == before[1]
    assert signature(DatasetSource(name="image_folder", root=str(tmp_path), image_size=16)) != signature(source)
