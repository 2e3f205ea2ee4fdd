"""Splits that live on the device, and the seeded batches that training, scoring and evaluation take from them.

Shapes: B batch, C channels, H height, W width. Images stay uint8 until a batch is made; a batch is float32, normalised.
Everything random comes from CPU generators seeded by (seed, purpose, epoch), so the order is the same on every device.
Reads: datasets.py. Read by: training.py, pruning.py, phases.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from trainables import datasets
from trainables.config import DatasetConfig, derived_seed
from trainables.failures import DataError
from trainables.tensors import EVALUATION_BATCH, Normalization

PAD = 4  # pixels around an image before the random crop


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Images uint8 (N, C, H, W) and labels int64 (N,) on the device."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """One trial's images on its device."""

    train: Split
    validation: Split
    test: Split
    normalization: Normalization
    num_classes: int
    augment: str

    @property
    def image_shape(self) -> tuple[int, int, int]:
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width


@lru_cache(maxsize=2)
def load_data(config: DatasetConfig, source: datasets.Source, device: str) -> Data:
    """The splits of a data set on the device; the last two that a process used stay there.

    Raises:
        DataError: the data set is missing, or has fewer images than `limit` asks for.
    """
    images = datasets.load(source)
    train = torch.arange(len(images.train_labels))
    test = torch.arange(len(images.test_labels))
    if config.limit is not None:
        train = class_balanced(images.train_labels, config.limit, derived_seed(config.split_seed, "limit train"))
        test = class_balanced(images.test_labels, config.limit // 5, derived_seed(config.split_seed, "limit test"), "test")
    held_out = round(config.validation * len(train))
    chosen = class_balanced(images.train_labels[train], held_out, derived_seed(config.split_seed, "validation"))
    is_held_out = torch.zeros(len(train), dtype=torch.bool)
    is_held_out[chosen] = True

    def split(images_NCHW: Tensor, labels_N: Tensor, index: Tensor) -> Split:
        return Split(images=images_NCHW[index].to(device), labels=labels_N[index].to(device))

    kept = train[~is_held_out]
    return Data(
        train=split(images.train_images, images.train_labels, kept),
        validation=split(images.train_images, images.train_labels, train[is_held_out]),
        test=split(images.test_images, images.test_labels, test),
        normalization=measured_normalization(images.train_images[kept]),
        num_classes=images.num_classes,
        augment=augmentation(config),
    )


def augmentation(config: DatasetConfig) -> str:
    """The augmentation that "auto" stands for: flips and crops would change what an 8 x 8 digit is."""
    if config.augment != "auto":
        return config.augment
    return "none" if config.name == "digits" else "crop_flip"


def class_balanced(labels_N: Tensor, count: int, seed: int, what: str = "training") -> Tensor:
    """Indices, ascending, of `count` images drawn evenly from the classes; a short class gives all that it has.

    Raises:
        DataError: `count` is larger than the number of images.
    """
    if count > len(labels_N):
        raise DataError(f"dataset.limit asks for {count} {what} images, the data set has {len(labels_N)}")
    shuffled = torch.randperm(len(labels_N), generator=torch.Generator().manual_seed(seed))
    labels = labels_N[shuffled]
    rank_in_class = torch.empty_like(labels)
    for label in labels.unique():
        members = labels == label
        rank_in_class[members] = torch.arange(int(members.sum()))
    # Rank first, class second: one image of each class in turn.
    order = torch.argsort(rank_in_class * (int(labels.max()) + 1) + labels, stable=True)
    return shuffled[order[:count]].sort().values


def measured_normalization(images_NCHW: Tensor) -> Normalization:
    """Mean and standard deviation per channel, from exact integer sums, rounded to six decimals."""
    channels = images_NCHW.transpose(0, 1).flatten(1)
    values = torch.arange(256, dtype=torch.float64)
    means, stds = [], []
    for channel in channels:
        share = torch.bincount(channel.flatten(), minlength=256).double() / channel.numel()
        mean = float((share * values).sum())
        variance = float((share * (values - mean) ** 2).sum())
        means.append(round(mean / 255, 6))
        stds.append(round(max(variance**0.5 / 255, 1e-3), 6))  # an all-black channel stays finite
    return Normalization(mean=tuple(means), std=tuple(stds))


def training_batches(data: Data, batch_size: int, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of shuffled, augmented, normalised batches; the images that do not fill a last batch wait for the next.

    Yields float32 (B, C, H, W) and int64 (B,) on the device, B always `batch_size`.

    Raises:
        DataError: there are fewer training images than one batch.
    """
    count = len(data.train)
    if count < batch_size:
        raise DataError(f"training.batch_size is {batch_size}, but there are only {count} training images")
    device = data.train.labels.device
    generator = torch.Generator().manual_seed(derived_seed(seed, "batches", epoch))
    order = torch.randperm(count, generator=generator).to(device)
    offsets = torch.randint(0, 2 * PAD + 1, (count, 2), generator=generator).to(device)
    flips = torch.randint(0, 2, (count,), generator=generator).to(device)
    images = data.train.images
    padded = images if data.augment == "none" else torch.nn.functional.pad(images, (PAD, PAD, PAD, PAD))
    for start in range(0, count - batch_size + 1, batch_size):
        chosen = order[start : start + batch_size]
        if data.augment == "none":
            batch = images[chosen]
        else:
            flip = flips[chosen] if data.augment == "crop_flip" else torch.zeros_like(chosen)
            batch = cropped(padded, chosen, offsets[chosen], flip, images.shape[2], images.shape[3])
        yield data.normalization.apply(batch.float() / 255), data.train.labels[chosen]


def cropped(padded_NCHW: Tensor, chosen_B: Tensor, offsets_B2: Tensor, flips_B: Tensor, height: int, width: int) -> Tensor:
    """The chosen images, each cut out at its offset (row, column) and mirrored where its flip is 1; one gather."""
    device = padded_NCHW.device
    rows = offsets_B2[:, 0, None] + torch.arange(height, device=device)
    columns = torch.arange(width, device=device)
    columns = offsets_B2[:, 1, None] + torch.where(flips_B[:, None] == 1, width - 1 - columns, columns)
    channels = torch.arange(padded_NCHW.shape[1], device=device)
    return padded_NCHW[
        chosen_B[:, None, None, None], channels[None, :, None, None], rows[:, None, :, None], columns[:, None, None, :]
    ]


def scoring_batches(data: Data, batch_size: int, count: int, seed: int, round_: int) -> Iterator[tuple[Tensor, Tensor]]:
    """`count` seeded batches of training images without augmentation, fresh in every round.

    Batches within a round share no image as long as there are enough; a small set gives batches of all it has.
    """
    generator = torch.Generator().manual_seed(derived_seed(seed, "score", round_))
    order = torch.randperm(len(data.train), generator=generator).to(data.train.labels.device)
    size = min(batch_size, len(order))
    for batch in range(count):
        chosen = order.roll(-batch * size)[:size]
        yield data.normalization.apply(data.train.images[chosen].float() / 255), data.train.labels[chosen]


def class_balanced_batches(
    data: Data, batch_size: int, per_class: int, seed: int, round_: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """`per_class` seeded training images of every class without augmentation, fresh in every round, in mixed order.

    In as few batches of at most `batch_size` as hold them, of sizes that differ by one at most. Batches that are ordered by
    class, as in the public code of GraSP, would give BN statistics of half the classes. A class that has fewer images gives
    all of them.
    """
    labels = data.train.labels.cpu()
    count = min(per_class * data.num_classes, len(labels))
    chosen = class_balanced(labels, count, derived_seed(seed, "score images", round_))
    generator = torch.Generator().manual_seed(derived_seed(seed, "score", round_))
    mixed = chosen[torch.randperm(len(chosen), generator=generator)]
    for part in mixed.tensor_split(math.ceil(len(mixed) / batch_size)):
        batch = part.to(data.train.labels.device)
        yield data.normalization.apply(data.train.images[batch].float() / 255), data.train.labels[batch]


def evaluation_batches(split: Split, normalization: Normalization) -> Iterator[tuple[Tensor, Tensor]]:
    """The split in order, in batches of EVALUATION_BATCH, normalised."""
    for start in range(0, len(split), EVALUATION_BATCH):
        images = split.images[start : start + EVALUATION_BATCH]
        yield normalization.apply(images.float() / 255), split.labels[start : start + EVALUATION_BATCH]
