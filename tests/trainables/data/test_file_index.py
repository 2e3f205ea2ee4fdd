"""Tiny ImageNet and ImageNet: their layouts, classes, labels and digests."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.dataset_folders import (
    WNIDS,
    all_images,
    classes_and_numbers,
    imagenet,
    imagenet_source,
    streamed,
    tiny_imagenet,
    tiny_source,
    write_image,
)
from trainables.data.datasets import content_digest, load, signature
from trainables.errors import DataError


@pytest.mark.parametrize("below", ["", "tiny-imagenet-200"])
def test_tiny_imagenet_labels_match_the_pixels(tmp_path: Path, below: str) -> None:
    tiny_imagenet(tmp_path / below)
    images = load(tiny_source(tmp_path))
    assert images.num_classes == 3
    assert images.train_images.shape == (18, 3, 64, 64)
    assert images.train_labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert torch.equal(images.train_images[0], torch.full((3, 64, 64), 90, dtype=torch.uint8))
    expected = [(label, number) for label in range(3) for number in range(6)]
    assert classes_and_numbers(images.train_images[1:]) == expected[1:]
    labels_and_numbers = classes_and_numbers(images.test_images)
    assert sorted(labels_and_numbers) == [(label, number) for label in range(3) for number in range(2)]
    assert images.test_labels.tolist() == [label for label, _ in labels_and_numbers]


def without_annotations(root: Path) -> None:
    (root / "val" / "val_annotations.txt").unlink()


def sorted_into_class_folders(root: Path) -> None:
    for line in (root / "val" / "val_annotations.txt").read_text().splitlines():
        name, wnid = line.split("\t")[:2]
        (root / "val" / wnid).mkdir(exist_ok=True)
        (root / "val" / "images" / name).rename(root / "val" / wnid / name)
    (root / "val" / "images").rmdir()


def with_an_image_too_many(root: Path) -> None:
    write_image(root / "val" / "images" / "val_99.JPEG", 0, 0)


def with_a_strange_class(root: Path) -> None:
    path = root / "val" / "val_annotations.txt"
    path.write_text(path.read_text().replace(f"val_0.JPEG\t{WNIDS[2]}", "val_0.JPEG\tn99999999"))


def with_spaces_for_tabs(root: Path) -> None:
    path = root / "val" / "val_annotations.txt"
    path.write_text(path.read_text().replace("\t", " "))


def without_validation_images(root: Path) -> None:
    shutil.rmtree(root / "val" / "images")
    (root / "val" / "images").mkdir()


def sorted_like_an_image_folder(root: Path) -> None:
    for folder in (root / "train").iterdir():
        for path in (folder / "images").iterdir():
            path.rename(folder / path.name)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (
            without_annotations,
            r"val' must hold images/\*\.JPEG and val_annotations\.txt, as the archive of Tiny ImageNet unpacks",
        ),
        (sorted_into_class_folders, r"where val/ was sorted into class folders, unpack it again"),
        (with_an_image_too_many, r"val_annotations\.txt' has no line for val_99\.JPEG; unpack"),
        (with_a_strange_class, r"val_0\.JPEG' is of class 'n99999999', which has no images in .*train'; give"),
        (
            with_spaces_for_tabs,
            r"val_annotations\.txt', line 1: must be file, wnid and box, separated by tabs, got 'val_0\.JPEG n",
        ),
        (without_validation_images, r"no images in .*val/images'; unpack the archive again"),
        (sorted_like_an_image_folder, rf"train/{WNIDS[0]}' must hold its images in 'images'; move them there"),
        (lambda root: shutil.rmtree(root / "train"), r"has no folder 'train'; the layout is train/WNID/images/\*\.JPEG"),
    ],
)
def test_tiny_imagenet_rejects_other_layouts(tmp_path: Path, break_it: Any, message: str) -> None:
    break_it(tiny_imagenet(tmp_path))
    for ask in (signature, content_digest, load):
        with pytest.raises(DataError, match=message):
            ask(tiny_source(tmp_path))


def test_tiny_imagenet_digest_covers_contents_and_labels(tmp_path: Path) -> None:
    first, second = tiny_imagenet(tmp_path / "first"), tmp_path / "second" / "tiny-imagenet-200"
    shutil.copytree(first, second)
    digest = content_digest(tiny_source(first))
    assert content_digest(tiny_source(tmp_path / "second")) == digest
    write_image(second / "train" / WNIDS[1] / "images" / f"{WNIDS[1]}_0.JPEG", 1, 9)
    assert content_digest(tiny_source(second)) != digest
    path = first / "val" / "val_annotations.txt"
    path.write_text(path.read_text().replace(f"val_0.JPEG\t{WNIDS[2]}", f"val_0.JPEG\t{WNIDS[1]}"))
    assert content_digest(tiny_source(first)) != digest


def test_imagenet_labels_match_the_pixels(tmp_path: Path) -> None:
    data = streamed(imagenet(tmp_path))
    assert data.num_classes == 3
    assert data.image_shape == (3, 32, 32)
    assert (data.normalization.mean, data.normalization.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert classes_and_numbers(all_images(data.train)) == [(label, number) for label in range(3) for number in range(8)]
    assert data.train.labels.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert classes_and_numbers(all_images(data.test)) == [(label, number) for label in range(3) for number in range(4)]
    assert data.test.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_imagenet_has_224_pixels_by_default(tmp_path: Path) -> None:
    data = streamed(imagenet(tmp_path), image_size=None)
    assert all_images(data.test.first(2)).shape == (2, 3, 224, 224)


def flat_validation(root: Path) -> None:
    for path in list((root / "val").rglob("*.JPEG")):
        path.rename(root / "val" / path.name)
    for wnid in WNIDS:
        (root / "val" / wnid).rmdir()


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (flat_validation, r"no images in .*val'; the layout is val/WNID/\*\.JPEG, so sort the validation images into folders"),
        (lambda root: shutil.rmtree(root / "val"), r"has no folder 'val'; the layout is val/WNID/\*\.JPEG"),
        (lambda root: shutil.rmtree(root / "train" / WNIDS[1]), rf"is of class '{WNIDS[1]}', which has no images in .*train'"),
        (lambda root: shutil.rmtree(root), r"no folder .* on this machine; give the folder of imagenet"),
    ],
)
def test_imagenet_rejects_other_layouts(tmp_path: Path, break_it: Any, message: str) -> None:
    break_it(imagenet(tmp_path))
    for ask in (signature, content_digest):
        with pytest.raises(DataError, match=message):
            ask(imagenet_source(tmp_path))
    with pytest.raises(DataError, match=message):
        streamed(tmp_path)


def test_imagenet_digest_covers_names_and_sizes(tmp_path: Path) -> None:
    first, second = imagenet(tmp_path / "first"), tmp_path / "second"
    shutil.copytree(first, second)
    digest = content_digest(imagenet_source(first))
    assert content_digest(imagenet_source(second)) == digest
    image = second / "train" / WNIDS[0] / f"{WNIDS[0]}_00.JPEG"
    content = image.read_bytes()
    image.write_bytes(content[:-1] + b"\0")  # the same size: not read, so not noticed
    assert content_digest(imagenet_source(second)) == digest
    image.write_bytes(content + b"\0")
    assert content_digest(imagenet_source(second)) != digest
    image.write_bytes(content)
    image.rename(image.with_name("renamed.JPEG"))
    assert content_digest(imagenet_source(second)) != digest
