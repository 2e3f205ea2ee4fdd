"""Images that are streamed: their crops, batches and augmentation are the same for any number of workers."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.support.dataset_folders import WNIDS, all_images, classes_and_numbers, imagenet, imagenet_source, streamed, striped
from trainables.config.trial import DatasetConfig
from trainables.data import batches as data_module
from trainables.data import streaming
from trainables.data.batches import class_balanced_batches, evaluation_batches, scoring_batches, training_batches
from trainables.data.splits import Data, Split, load_data
from trainables.data.streaming import AREA, RATIO, center_crop, random_resized_crop, random_resized_crop_box
from trainables.errors import DataError


def pixels(images_BCHW: Tensor, data: Data) -> Tensor:
    """Normalised images as they were."""
    mean, std = (torch.tensor(part).view(1, 3, 1, 1) for part in (data.normalization.mean, data.normalization.std))
    return ((images_BCHW * std + mean) * 255).round().to(torch.uint8)


def test_streamed_splits_are_those_of_decoded_images(tmp_path: Path) -> None:
    root = imagenet(tmp_path)
    data = streamed(root, limit=15, validation=0.2)
    assert (len(data.train), len(data.validation), len(data.test)) == (12, 3, 3)
    parts = {
        name: classes_and_numbers(all_images(split)) for name, split in (("train", data.train), ("validation", data.validation))
    }
    for split in (data.train, data.validation, data.test):
        assert [label for label, _ in classes_and_numbers(all_images(split))] == split.labels.tolist()
        assert len(set(Counter(split.labels.tolist()).values())) == 1  # class-balanced
    assert not set(parts["train"]) & set(parts["validation"])
    again = streamed(root, limit=15, validation=0.2, split_seed=1)
    assert classes_and_numbers(all_images(again.train)) != parts["train"]


def noise(width: int, height: int) -> Image.Image:
    draw = np.random.default_rng(width * height)
    return Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(50, 70), (71, 50), (64, 64), (20, 500), (33, 31)])
@pytest.mark.parametrize("side", [32, 28])
def test_center_crop_matches_torchvision(size: tuple[int, int], side: int) -> None:
    from torchvision.transforms import functional

    image = noise(*size)
    expected = functional.center_crop(functional.resize(image, [round(side * 256 / 224)]), [side])
    assert np.array_equal(np.asarray(center_crop(image, side)), np.asarray(expected))


@pytest.mark.parametrize("seed", range(8))
def test_random_resized_crop_matches_torchvision(seed: int) -> None:
    from torchvision.transforms import functional

    image = noise(60, 45)
    draw = random.Random(seed)
    mirrored = draw.random() < 0.5
    left, top, right, bottom = random_resized_crop_box(60, 45, draw)
    expected = functional.resized_crop(image, top, left, bottom - top, right - left, [32, 32])
    assert np.array_equal(np.asarray(random_resized_crop(image, 32, seed, flip=False)), np.asarray(expected))
    expected = functional.hflip(expected) if mirrored else expected
    assert np.array_equal(np.asarray(random_resized_crop(image, 32, seed, flip=True)), np.asarray(expected))


def test_random_boxes_cover_areas_and_ratios_evenly() -> None:
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
def test_box_is_central_where_no_random_box_fits(size: tuple[int, int], box: tuple[int, int, int, int]) -> None:
    assert random_resized_crop_box(*size, random.Random(0)) == box


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of several pieces, the last one short."""
    monkeypatch.setattr(streaming, "CHUNK", 3)
    monkeypatch.setattr(data_module, "EVALUATION_BATCH", 7)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("threads", [0, 1, 2])
@pytest.mark.process
def test_streamed_evaluation_covers_every_image_once_in_order(tmp_path: Path, threads: int) -> None:
    data = streamed(imagenet(tmp_path), threads)
    batches = list(evaluation_batches(data.test, data.normalization))
    assert [len(labels) for _, labels in batches] == [7, 5]
    labels_and_numbers = [one for images, _ in batches for one in classes_and_numbers(pixels(images, data))]
    assert labels_and_numbers == [(label, number) for label in range(3) for number in range(4)]
    assert torch.cat([labels for _, labels in batches]).tolist() == [label for label, _ in labels_and_numbers]


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.process
def test_streamed_batches_match_their_labels(tmp_path: Path, threads: int) -> None:
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
        labels_and_numbers = [one for images, _ in batches for one in classes_and_numbers(pixels(images, data))]
        assert [label for label, _ in labels_and_numbers] == torch.cat([labels for _, labels in batches]).tolist()
        assert len(set(labels_and_numbers)) == len(labels_and_numbers)  # no image twice


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("augment", ["none", "crop", "crop_flip"])
@pytest.mark.process
def test_streaming_does_not_depend_on_the_number_of_workers(tmp_path: Path, augment: str) -> None:
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


def test_streamed_augmentation_depends_on_seed_and_epoch(tmp_path: Path) -> None:
    root = striped(tmp_path)

    def epoch(seed: int, number: int, augment: str = "crop_flip") -> dict[tuple[int, int], Tensor]:
        """The crop of every image by its class and number, independent of the order."""
        plain, data = streamed(root, augment="none"), streamed(root, augment=augment)
        names = [
            one for images, _ in training_batches(plain, 6, seed, number) for one in classes_and_numbers(pixels(images, plain))
        ]
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
@pytest.mark.process
def test_undecodable_streamed_file_is_named_in_one_line(tmp_path: Path, threads: int) -> None:
    root = imagenet(tmp_path)
    (root / "val" / WNIDS[1] / "broken.JPEG").write_bytes(b"not a jpeg")
    data = streamed(root, threads)
    with pytest.raises(
        DataError,
        match=r"^cannot decode '.*broken\.JPEG': it must begin like an image, got b'not a jpeg'; replace or remove it$",
    ):
        list(evaluation_batches(data.test, data.normalization))


def test_first_images_of_a_streamed_split(tmp_path: Path) -> None:
    data = streamed(imagenet(tmp_path))
    for few in (data.train.first(10), data.train.first(99).first(10)):
        assert classes_and_numbers(all_images(few)) == classes_and_numbers(all_images(data.train))[:10]
        assert few.labels.tolist() == data.train.labels.tolist()[:10]
    resident = Split(images=torch.arange(36, dtype=torch.uint8).view(3, 1, 3, 4), labels=torch.arange(3)).first(2)
    assert torch.equal(all_images(resident), torch.arange(24, dtype=torch.uint8).view(2, 1, 3, 4))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_streamed_batches_are_equal_on_gpu_and_cpu(tmp_path: Path) -> None:
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
