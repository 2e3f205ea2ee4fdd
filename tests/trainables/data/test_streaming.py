"""CIFAR-100, Tiny ImageNet and streamed ImageNet, on small sets written by the tests in their true layouts.

An image's colours tell its class and its number, so what was read is checked against the pixels and not against a path.
"""

from __future__ import annotations

import hashlib
import pickle
import random
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from orchestrator.storage.base import Storage
from orchestrator.storage.layout import stop_files
from tests.support.trials import SWEEP, metric_points, new_storage, run, tiny_config, tiny_training
from trainables.config.keys import canonical
from trainables.config.trial import DatasetConfig, TrialConfig
from trainables.data import batches as data_module
from trainables.data import splits, streaming
from trainables.data.batches import class_balanced_batches, evaluation_batches, scoring_batches, training_batches
from trainables.data.datasets import DatasetSource, content_digest, download_if_missing, load, signature
from trainables.data.splits import Data, Split, load_data
from trainables.data.staging import StagedDataset
from trainables.data.streaming import AREA, RATIO, center_crop, random_resized_crop, random_resized_crop_box
from trainables.errors import DataError, StopRequestedError
from trainables.runtime.device import Runtime
from trainables.trial.checkpoint import TrialState
from trainables.worker.probe import STEPS, Probe

WNIDS = ("n01443537", "n01629819", "n02056570")  # as sorted; a class is its channel
Read = list[tuple[int, int]]  # class and number of every image, as its pixels tell them


def write_image(path: Path, label: int, number: int, size: tuple[int, int] = (64, 64)) -> None:
    """The channel of the class is full, the next one tells the number (below 14)."""
    colour = [0, 0, 0]
    colour[label], colour[(label + 1) % 3] = 250, 16 * number
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, tuple(colour)).save(path, format="JPEG", quality=95)


def seen(images: Iterable[Tensor]) -> Read:
    """What a pixel of the right half of uint8 images tells."""
    told = []
    for image in images:
        pixel = image[:, image.shape[1] // 2, image.shape[2] * 3 // 4].tolist()
        label = pixel.index(max(pixel))
        told.append((label, round(pixel[(label + 1) % 3] / 16)))
    return told


def pixels(images_BCHW: Tensor, data: Data) -> Tensor:
    """Normalised images as they were."""
    mean, std = (torch.tensor(part).view(1, 3, 1, 1) for part in (data.normalization.mean, data.normalization.std))
    return ((images_BCHW * std + mean) * 255).round().to(torch.uint8)


def whole(split: Split) -> Tensor:
    return torch.cat([images for images, _ in split.batches([torch.arange(len(split))])])


# CIFAR-100


def cifar100(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """Its three files; torchvision takes their MD5 for the published ones."""
    from torchvision.datasets import CIFAR100

    draw = np.random.default_rng(0)
    content: dict[str, dict[str, Any]] = {"meta": {"fine_label_names": [f"class {i}" for i in range(100)]}}
    for name, count in (("train", 7), ("test", 3)):
        content[name] = {
            "data": draw.integers(0, 256, (count, 3072), dtype=np.uint8),
            "fine_labels": draw.integers(0, 100, count).tolist(),
            "coarse_labels": [0] * count,
        }
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    for name, part in content.items():
        (folder / name).write_bytes(pickle.dumps(part))
    md5 = {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in content}
    monkeypatch.setattr(CIFAR100, "train_list", [["train", md5["train"]]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", md5["test"]]])
    monkeypatch.setattr(CIFAR100, "meta", CIFAR100.meta | {"md5": md5["meta"]})
    return content


@pytest.mark.parametrize("below", ["", "cifar-100-python"])
def test_cifar100_is_read_from_its_true_files_with_fine_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    content = cifar100(tmp_path, monkeypatch)
    images = load(DatasetSource(name="cifar100", root=str(tmp_path / below)))
    assert images.num_classes == 100
    assert np.array_equal(images.train_images.numpy().reshape(7, 3072), content["train"]["data"])
    assert np.array_equal(images.test_images.numpy().reshape(3, 3072), content["test"]["data"])
    assert images.train_images.shape == (7, 3, 32, 32)
    assert images.train_labels.tolist() == content["train"]["fine_labels"]
    assert images.test_labels.tolist() == content["test"]["fine_labels"]


def test_cifar100_with_other_content_than_the_published_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cifar100(tmp_path, monkeypatch)
    with open(tmp_path / "cifar-100-python" / "test", "ab") as file:
        file.write(b"more")
    with pytest.raises(DataError, match=rf"CIFAR-100 in '{tmp_path / 'cifar-100-python'}' is damaged"):
        load(DatasetSource(name="cifar100", root=str(tmp_path)))
    (tmp_path / "cifar-100-python" / "meta").unlink()
    with pytest.raises(DataError, match=r"has no file meta of cifar100; or set dataset\.download: true"):
        load(DatasetSource(name="cifar100", root=str(tmp_path)))


def test_cifar100_is_fetched_where_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR100

    monkeypatch.setattr(CIFAR100, "download", lambda reader: cifar100(Path(reader.root), monkeypatch))
    download_if_missing(DatasetSource(name="cifar100", root=str(tmp_path), download=True))
    assert (tmp_path / "cifar-100-python" / "train").is_file()


# Tiny ImageNet


def tiny_imagenet(root: Path) -> Path:
    """Three classes of 6 images to train on, one of them grey, and 2 to validate; lists in another order than sorted."""
    lines: list[str] = []
    for label in (2, 0, 1):
        wnid = WNIDS[label]
        for number in range(6):
            write_image(root / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", label, number)
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t0\t62\t62\n")
        for number in range(2):
            name = f"val_{2 * len(lines)}.JPEG"  # numbers do not follow the classes
            write_image(root / "val" / "images" / name, label, number)
            lines.append(f"{name}\t{wnid}\t0\t32\t44\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    Image.new("L", (64, 64), 90).save(root / "train" / WNIDS[0] / "images" / f"{WNIDS[0]}_0.JPEG")
    write_image(root / "test" / "images" / "test_0.JPEG", 0, 0)
    (root / "wnids.txt").write_text("".join(f"{WNIDS[label]}\n" for label in (2, 0, 1)))
    (root / "words.txt").write_text("".join(f"{wnid}\tsome animal\n" for wnid in WNIDS))
    return root


def tiny_source(root: Path) -> DatasetSource:
    return DatasetSource(name="tiny_imagenet", root=str(root))


@pytest.mark.parametrize("below", ["", "tiny-imagenet-200"])
def test_tiny_imagenet_has_the_classes_that_its_pixels_tell(tmp_path: Path, below: str) -> None:
    tiny_imagenet(tmp_path / below)
    images = load(tiny_source(tmp_path))
    assert images.num_classes == 3
    assert images.train_images.shape == (18, 3, 64, 64)
    assert images.train_labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert torch.equal(images.train_images[0], torch.full((3, 64, 64), 90, dtype=torch.uint8))
    expected = [(label, number) for label in range(3) for number in range(6)]
    assert seen(images.train_images[1:]) == expected[1:]
    told = seen(images.test_images)
    assert sorted(told) == [(label, number) for label in range(3) for number in range(2)]
    assert images.test_labels.tolist() == [label for label, _ in told]


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
    ("break_it", "told"),
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
def test_another_layout_of_tiny_imagenet_is_refused_before_anything_runs(tmp_path: Path, break_it: Any, told: str) -> None:
    break_it(tiny_imagenet(tmp_path))
    for ask in (signature, content_digest, load):
        with pytest.raises(DataError, match=told):
            ask(tiny_source(tmp_path))


def test_the_digest_of_tiny_imagenet_is_of_contents_and_labels(tmp_path: Path) -> None:
    first, second = tiny_imagenet(tmp_path / "first"), tmp_path / "second" / "tiny-imagenet-200"
    shutil.copytree(first, second)
    digest = content_digest(tiny_source(first))
    assert content_digest(tiny_source(tmp_path / "second")) == digest
    write_image(second / "train" / WNIDS[1] / "images" / f"{WNIDS[1]}_0.JPEG", 1, 9)
    assert content_digest(tiny_source(second)) != digest
    path = first / "val" / "val_annotations.txt"
    path.write_text(path.read_text().replace(f"val_0.JPEG\t{WNIDS[2]}", f"val_0.JPEG\t{WNIDS[1]}"))
    assert content_digest(tiny_source(first)) != digest


# ImageNet


def imagenet(root: Path, train: int = 8, val: int = 4) -> Path:
    """Three classes of images of several sizes, wide and tall."""
    for label in (2, 0, 1):
        for number in range(train):
            name = f"{WNIDS[label]}_{number:02}.JPEG"
            write_image(root / "train" / WNIDS[label] / name, label, number, (60 + 10 * number, 90 - 5 * number))
        for number in range(val):
            name = f"ILSVRC2012_val_{3 * number + label:08}.JPEG"
            write_image(root / "val" / WNIDS[label] / name, label, number, (70, 50))
    return root


def imagenet_source(root: Path) -> DatasetSource:
    return DatasetSource(name="imagenet", root=str(root))


def streamed(root: Path, threads: int = 0, **options: Any) -> Data:
    config = DatasetConfig(name="imagenet", image_size=32, validation=0.0)
    return load_data(replace(config, **options), imagenet_source(root), "cpu", threads)


def test_imagenet_has_the_classes_that_its_pixels_tell(tmp_path: Path) -> None:
    data = streamed(imagenet(tmp_path))
    assert data.num_classes == 3
    assert data.image_shape == (3, 32, 32)
    assert (data.normalization.mean, data.normalization.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert seen(whole(data.train)) == [(label, number) for label in range(3) for number in range(8)]
    assert data.train.labels.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert seen(whole(data.test)) == [(label, number) for label in range(3) for number in range(4)]
    assert data.test.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_imagenet_has_224_pixels_unless_another_size_is_given(tmp_path: Path) -> None:
    data = streamed(imagenet(tmp_path), image_size=None)
    assert whole(data.test.first(2)).shape == (2, 3, 224, 224)


def flat_validation(root: Path) -> None:
    for path in list((root / "val").rglob("*.JPEG")):
        path.rename(root / "val" / path.name)
    for wnid in WNIDS:
        (root / "val" / wnid).rmdir()


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        (flat_validation, r"no images in .*val'; the layout is val/WNID/\*\.JPEG, so sort the validation images into folders"),
        (lambda root: shutil.rmtree(root / "val"), r"has no folder 'val'; the layout is val/WNID/\*\.JPEG"),
        (lambda root: shutil.rmtree(root / "train" / WNIDS[1]), rf"is of class '{WNIDS[1]}', which has no images in .*train'"),
        (lambda root: shutil.rmtree(root), r"no folder .* on this machine; give the folder of imagenet"),
    ],
)
def test_another_layout_of_imagenet_is_refused_before_anything_runs(tmp_path: Path, break_it: Any, told: str) -> None:
    break_it(imagenet(tmp_path))
    for ask in (signature, content_digest):
        with pytest.raises(DataError, match=told):
            ask(imagenet_source(tmp_path))
    with pytest.raises(DataError, match=told):
        streamed(tmp_path)


def test_the_digest_of_imagenet_is_of_names_and_sizes(tmp_path: Path) -> None:
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


def test_limit_validation_and_split_seed_choose_streamed_images_as_they_do_others(tmp_path: Path) -> None:
    root = imagenet(tmp_path)
    data = streamed(root, limit=15, validation=0.2)
    assert (len(data.train), len(data.validation), len(data.test)) == (12, 3, 3)
    parts = {name: seen(whole(split)) for name, split in (("train", data.train), ("validation", data.validation))}
    for split in (data.train, data.validation, data.test):
        assert [label for label, _ in seen(whole(split))] == split.labels.tolist()
        assert len(set(Counter(split.labels.tolist()).values())) == 1  # class-balanced
    assert not set(parts["train"]) & set(parts["validation"])
    again = streamed(root, limit=15, validation=0.2, split_seed=1)
    assert seen(whole(again.train)) != parts["train"]


# How streamed images are cut


def noise(width: int, height: int) -> Image.Image:
    draw = np.random.default_rng(width * height)
    return Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(50, 70), (71, 50), (64, 64), (20, 500), (33, 31)])
@pytest.mark.parametrize("side", [32, 28])
def test_the_middle_is_that_of_torchvisions_resize_and_centre_crop(size: tuple[int, int], side: int) -> None:
    from torchvision.transforms import functional

    image = noise(*size)
    expected = functional.center_crop(functional.resize(image, [round(side * 256 / 224)]), [side])
    assert np.array_equal(np.asarray(center_crop(image, side)), np.asarray(expected))


@pytest.mark.parametrize("seed", range(8))
def test_a_random_crop_is_torchvisions_resized_crop_of_its_box(seed: int) -> None:
    from torchvision.transforms import functional

    image = noise(60, 45)
    draw = random.Random(seed)
    mirrored = draw.random() < 0.5
    left, top, right, bottom = random_resized_crop_box(60, 45, draw)
    expected = functional.resized_crop(image, top, left, bottom - top, right - left, [32, 32])
    assert np.array_equal(np.asarray(random_resized_crop(image, 32, seed, flip=False)), np.asarray(expected))
    expected = functional.hflip(expected) if mirrored else expected
    assert np.array_equal(np.asarray(random_resized_crop(image, 32, seed, flip=True)), np.asarray(expected))


def test_random_boxes_lie_in_the_image_and_cover_areas_and_ratios_evenly() -> None:
    draw = random.Random(0)
    boxes = np.array([random_resized_crop_box(500, 400, draw) for _ in range(4000)])
    widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert boxes.min() >= 0
    assert boxes[:, 2].max() <= 500
    assert boxes[:, 3].max() <= 400
    areas, ratios = widths * heights / 200_000, widths / heights
    assert AREA[0] - 0.01 < areas.min() < AREA[0] + 0.02
    assert areas.max() > 0.95
    assert RATIO[0] * 0.98 < ratios.min() < RATIO[0] * 1.03
    assert RATIO[1] * 0.97 < ratios.max() < RATIO[1] * 1.02
    fits = areas < 0.5  # below that every ratio fits, so nothing was tried again
    assert np.quantile(areas[fits], [0.25, 0.5, 0.75]) == pytest.approx([0.185, 0.29, 0.395], abs=0.02)
    assert np.quantile(np.log(ratios[fits]), [0.25, 0.5, 0.75]) == pytest.approx([-0.144, 0, 0.144], abs=0.03)
    left = boxes[:, 0] / np.maximum(500 - widths, 1)
    assert np.quantile(left[fits], [0.25, 0.5, 0.75]) == pytest.approx([0.25, 0.5, 0.75], abs=0.04)


@pytest.mark.parametrize(("size", "box"), [((1000, 10), (493, 0, 506, 10)), ((10, 1000), (0, 493, 10, 506))])
def test_where_no_box_fits_it_is_the_middle(size: tuple[int, int], box: tuple[int, int, int, int]) -> None:
    assert random_resized_crop_box(*size, random.Random(0)) == box


# Batches of streamed images


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of several pieces, the last one short."""
    monkeypatch.setattr(streaming, "CHUNK", 3)
    monkeypatch.setattr(data_module, "EVALUATION_BATCH", 7)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("threads", [0, 1, 2])
def test_evaluation_sees_every_streamed_image_once_in_order(tmp_path: Path, threads: int) -> None:
    data = streamed(imagenet(tmp_path), threads)
    batches = list(evaluation_batches(data.test, data.normalization))
    assert [len(labels) for _, labels in batches] == [7, 5]
    told = [one for images, _ in batches for one in seen(pixels(images, data))]
    assert told == [(label, number) for label in range(3) for number in range(4)]
    assert torch.cat([labels for _, labels in batches]).tolist() == [label for label, _ in told]


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("threads", [0, 2])
def test_every_kind_of_batch_holds_images_of_its_labels(tmp_path: Path, threads: int) -> None:
    data = streamed(imagenet(tmp_path), threads)
    kinds = {
        "training": list(training_batches(data, 7, seed=0, epoch=0)),
        "scoring": list(scoring_batches(data, 7, 3, seed=0, round_=1)),
        "balanced": list(class_balanced_batches(data, 5, 4, seed=0, round_=1)),
    }
    assert {kind: [len(labels) for _, labels in batches] for kind, batches in kinds.items()} == {
        "training": [7] * 3,
        "scoring": [7] * 3,
        "balanced": [4] * 3,
    }
    for batches in kinds.values():
        assert all(images.dtype == torch.float32 and images.shape[1:] == (3, 32, 32) for images, _ in batches)
        told = [one for images, _ in batches for one in seen(pixels(images, data))]
        assert [label for label, _ in told] == torch.cat([labels for _, labels in batches]).tolist()
        assert len(set(told)) == len(told)  # no image twice


def striped(root: Path) -> Path:
    """As `imagenet`, each training image with a dark left half, so that crops and mirrors change it."""
    for path in (imagenet(root) / "train").rglob("*.JPEG"):
        image = np.asarray(Image.open(path)).copy()
        image[:, : image.shape[1] // 2] //= 4
        Image.fromarray(image).save(path, quality=95)
    return root


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("augment", ["none", "crop", "crop_flip"])
def test_any_number_of_workers_gives_the_same_bits_and_leaves_other_random_numbers_alone(tmp_path: Path, augment: str) -> None:
    root = striped(tmp_path)

    def everything(threads: int) -> bytes:
        data = streamed(root, threads, augment=augment)
        assert data.train.stream is not None
        assert data.train.stream.workers == min(threads, 2)
        before = torch.get_rng_state()
        content = b"".join(
            images.numpy().tobytes() + labels.numpy().tobytes()
            for batches in (
                training_batches(data, 5, seed=0, epoch=3),
                scoring_batches(data, 5, 2, seed=0, round_=1),
                evaluation_batches(data.test, data.normalization),
            )
            for images, labels in batches
        )
        assert torch.equal(torch.get_rng_state(), before)
        return content

    alone = everything(0)
    assert everything(1) == alone
    assert everything(2) == alone
    assert everything(7) == alone


def test_augmentation_follows_from_seed_and_epoch_alone(tmp_path: Path) -> None:
    root = striped(tmp_path)

    def epoch(seed: int, number: int, augment: str = "crop_flip") -> dict[tuple[int, int], Tensor]:
        """What became of every image, by what it is, whatever its place in the order."""
        plain, data = streamed(root, augment="none"), streamed(root, augment=augment)
        names = [one for images, _ in training_batches(plain, 6, seed, number) for one in seen(pixels(images, plain))]
        crops = torch.cat([images for images, _ in training_batches(data, 6, seed, number)])
        return dict(zip(names, crops, strict=True))

    first = epoch(0, 0)
    assert len(first) == 24
    random.seed(1)
    torch.manual_seed(1)
    again = epoch(0, 0)
    assert all(torch.equal(first[name], again[name]) for name in first)
    for other in (epoch(1, 0), epoch(0, 1)):
        assert sum(torch.equal(first[name], other[name]) for name in first) <= 4  # those from within one stripe
    unmirrored = epoch(0, 0, "crop")
    alike = {name for name in first if torch.equal(first[name], unmirrored[name])}
    mirrored = {name for name in first if torch.equal(first[name].flip(2), unmirrored[name])}
    assert alike | mirrored == set(first)
    assert min(len(alike - mirrored), len(mirrored - alike)) >= 5


@pytest.mark.parametrize("threads", [0, 2])
def test_a_streamed_file_that_cannot_be_decoded_is_named_in_one_line(tmp_path: Path, threads: int) -> None:
    root = imagenet(tmp_path)
    (root / "val" / WNIDS[1] / "broken.JPEG").write_bytes(b"not a jpeg")
    data = streamed(root, threads)
    with pytest.raises(
        DataError,
        match=r"^cannot decode '.*broken\.JPEG': it must begin like an image, got b'not a jpeg'; replace or remove it$",
    ):
        list(evaluation_batches(data.test, data.normalization))


def test_the_first_images_of_a_split_are_a_split(tmp_path: Path) -> None:
    data = streamed(imagenet(tmp_path))
    for few in (data.train.first(10), data.train.first(99).first(10)):
        assert seen(whole(few)) == seen(whole(data.train))[:10]
        assert few.labels.tolist() == data.train.labels.tolist()[:10]
    resident = Split(images=torch.arange(36, dtype=torch.uint8).view(3, 1, 3, 4), labels=torch.arange(3)).first(2)
    assert torch.equal(whole(resident), torch.arange(24, dtype=torch.uint8).view(2, 1, 3, 4))


# Whole trials


def streamed_config(**changes: Any) -> TrialConfig:
    dataset = DatasetConfig(name="imagenet", image_size=32, validation=0.25)
    return tiny_config(dataset=dataset, training=tiny_training(epochs=2, batch_size=8), **changes)


def tiny_imagenet_config(**changes: Any) -> TrialConfig:
    dataset = DatasetConfig(name="tiny_imagenet", validation=0.25)
    return replace(streamed_config(**changes), dataset=dataset)


def stopped_and_resumed(config: TrialConfig, storage: Storage, source: DatasetSource, phase: str) -> dict[str, Any]:
    """The sweep is asked to stop at the first boundary in a phase; the trial does at the next one."""
    (stop, _) = stop_files(SWEEP, "")

    def ask(state: TrialState) -> None:
        if state.phase == phase:
            storage.write(stop, b"")

    with pytest.raises(StopRequestedError, match="continues from there"):
        run(config, storage, 1, source=source, on_progress=ask)
    storage.remove(stop)
    return run(config, storage, 2, source=source)


@pytest.mark.parametrize(("model", "method"), [("convnet", "drive"), ("resnet20", "grasp")])
def test_a_streamed_trial_ends_with_the_same_bits_however_it_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, method: str
) -> None:
    config = streamed_config(model=model, method=method)
    source = imagenet_source(striped(tmp_path / "images"))
    expected = run(config, new_storage(tmp_path / "first"), source=source)
    points = metric_points(config, new_storage(tmp_path / "first"))
    assert expected["image_shape"] == [3, 32, 32]
    assert expected["num_classes"] == 3

    for phase in ("warmup", "prune", "train"):
        storage = new_storage(tmp_path / phase)
        assert stopped_and_resumed(config, storage, source, phase)["model_sha256"] == expected["model_sha256"]
        assert metric_points(config, storage) == points

    monkeypatch.setattr(splits, "decoding_workers", lambda device, threads: 0)
    load_data.cache_clear()
    alone = run(config, new_storage(tmp_path / "alone"), source=source)
    assert alone["model_sha256"] == expected["model_sha256"]


def test_a_trial_on_tiny_imagenet_ends_with_the_same_bits_however_it_ran(tmp_path: Path) -> None:
    config = tiny_imagenet_config()
    source = tiny_source(tiny_imagenet(tmp_path / "images"))
    expected = run(config, new_storage(tmp_path / "first"), source=source)
    assert expected["image_shape"] == [3, 64, 64]
    load_data.cache_clear()
    assert run(config, new_storage(tmp_path / "second"), source=source)["model_sha256"] == expected["model_sha256"]
    resumed = stopped_and_resumed(config, new_storage(tmp_path / "stopped"), source, "train")
    assert resumed["model_sha256"] == expected["model_sha256"]
    assert metric_points(config, new_storage(tmp_path / "stopped")) == metric_points(config, new_storage(tmp_path / "first"))


def test_a_probe_measures_a_few_streamed_batches(tmp_path: Path) -> None:
    config = replace(streamed_config(), training=tiny_training(batch_size=4))
    probe = Probe(canonical(config), StagedDataset(source=imagenet_source(imagenet(tmp_path))), Runtime())
    assert len(probe.data.train) == STEPS * 4
    assert probe.measure_peak_memory() > 1 << 26
    assert probe._train() == STEPS * 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_streamed_batches_on_a_gpu_are_those_of_a_processor(tmp_path: Path) -> None:
    root = striped(tmp_path)
    config = DatasetConfig(name="imagenet", image_size=32, validation=0.0)
    on_gpu = load_data(config, imagenet_source(root), "cuda", 3).train
    parts = torch.arange(24).split(7)
    for flip in (False, True):
        here, there = (
            list(split.augmented(parts, flip, torch.Generator().manual_seed(0))) for split in (streamed(root).train, on_gpu)
        )
        for (images, labels), (images_there, labels_there) in zip(here, there, strict=True):
            assert images_there.device.type == "cuda"
            assert torch.equal(images, images_there.cpu())
            assert torch.equal(labels, labels_there.cpu())
