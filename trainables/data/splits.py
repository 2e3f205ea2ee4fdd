"""The training, validation and test split of a trial: on the device, or streamed to it.

Shapes: N images of a split, B batch, C channels, H height, W width. Images stay uint8.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from trainables.config.trial import DatasetConfig
from trainables.data import datasets
from trainables.data.normalization import Normalization
from trainables.data.prescaled import prescaled_images
from trainables.data.source import DatasetSource
from trainables.data.split_counts import Counts, split_counts
from trainables.data.streaming import IMAGENET_NORMALIZATION, ImageFiles, Images, Stream, decoding_workers, encoded_names
from trainables.data.table import dataset_of, image_side
from trainables.runtime.seeding import derived_seed

PAD = 4  # pixels around an image before the random crop


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Images uint8 (N, C, H, W) and labels int64 (N,) on the device; of a streamed split `images` is (0, C, H, W).

    A batch is requested by the indices of its images in the split, int64 (B,) on the CPU. All batches are requested at once, so
    that no step waits for its indices, and streamed images are decoded ahead.
    """

    images: Tensor
    labels: Tensor
    stream: Stream | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int) -> Split:
        """The first images of the split, all if there are fewer."""
        stream = None if self.stream is None else self.stream.select(slice(count))
        return Split(images=self.images[:count], labels=self.labels[:count], stream=stream)

    def batches(self, batch_indices: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Images uint8 (B, C, H, W) and labels of each batch, on the device, without augmentation."""
        on_device = self._on_device(batch_indices)
        if self.stream is None:
            return self._with_labels(on_device, (self.images[indices_B] for indices_B in on_device))
        return self._with_labels(on_device, self.stream.batches(batch_indices))

    def augmented(
        self, batch_indices: Sequence[Tensor], flip: bool, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The same with random crops, and with `flip` mirrored at random; drawn anew for all N images at every call."""
        on_device = self._on_device(batch_indices)
        if self.stream is None:
            return self._with_labels(on_device, self._crops(on_device, flip, generator))
        return self._with_labels(on_device, self.stream.augmented(batch_indices, flip, generator))

    def _on_device(self, batch_indices: Sequence[Tensor]) -> list[Tensor]:
        return [indices_B.to(self.labels.device) for indices_B in batch_indices]

    def _with_labels(self, batch_indices: list[Tensor], images: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        for indices_B, images_BCHW in zip(batch_indices, images, strict=True):
            yield images_BCHW, self.labels[indices_B]

    def _crops(self, batch_indices: list[Tensor], flip: bool, generator: torch.Generator) -> Iterator[Tensor]:
        count, height, width = len(self), *self.images.shape[2:]
        offsets = torch.randint(0, 2 * PAD + 1, (count, 2), generator=generator).to(self.images.device)
        flips = torch.randint(0, 2, (count,), generator=generator).to(self.images.device)
        padded = torch.nn.functional.pad(self.images, (PAD, PAD, PAD, PAD))
        for indices_B in batch_indices:
            flips_B = flips[indices_B] if flip else torch.zeros_like(indices_B)
            yield random_crop(padded, indices_B, offsets[indices_B], flips_B, height, width)


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """The splits of one trial, with what its network needs to know about them."""

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
def load_data(config: DatasetConfig, source: DatasetSource, device: str, threads: int = 0) -> Data:
    """The splits of a data set on the device; a process keeps the last two there.

    Args:
        threads: of the trial; decides how many processes decode a streamed data set, not the result. 0 decodes in this one.

    Raises:
        DataError: the data set is missing, or `limit` does not suit it.
    """
    if dataset_of(source.name).is_streamed:
        return _streamed(config, source, device, decoding_workers(device, threads))
    images = datasets.load(source)
    train, validation, test = split_indices(config, images.train_labels, images.test_labels)

    def split(images_NCHW: Tensor, labels_N: Tensor, indices: Tensor) -> Split:
        return Split(images=images_NCHW[indices].to(device), labels=labels_N[indices].to(device))

    return Data(
        train=split(images.train_images, images.train_labels, train),
        validation=split(images.train_images, images.train_labels, validation),
        test=split(images.test_images, images.test_labels, test),
        normalization=measured_normalization(images.train_images[train]),
        num_classes=images.num_classes,
        augment=augmentation(config),
    )


def _streamed(config: DatasetConfig, source: DatasetSource, device: str, workers: int) -> Data:
    index, side = datasets.file_index(source), image_side(config)
    assert side is not None, "every streamed data set has a side"
    train_labels, test_labels = torch.tensor(index.train_labels), torch.tensor(index.test_labels)
    train, validation, test = split_indices(config, train_labels, test_labels)
    no_images = torch.empty((0, 3, side, side), dtype=torch.uint8, device=device)

    def images(names: list[str]) -> Images:
        if config.prescaled:
            return prescaled_images(index.root, names, side)
        return ImageFiles(root=index.root, names=encoded_names(names))

    def split(of: Images, labels_N: Tensor, indices: Tensor) -> Split:
        stream = Stream(images=of.select(indices), side=side, device=device, workers=workers)
        return Split(images=no_images, labels=labels_N[indices].to(device), stream=stream)

    train_images = images(index.train)
    return Data(
        train=split(train_images, train_labels, train),
        validation=split(train_images, train_labels, validation),
        test=split(images(index.test), test_labels, test),
        normalization=IMAGENET_NORMALIZATION,
        num_classes=len(index.classes),
        augment=augmentation(config),
    )


def split_indices(config: DatasetConfig, train_labels: Tensor, test_labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Indices of the training split and the validation split among the training images, and of the test split."""
    counts = split_counts(config, class_counts(train_labels), class_counts(test_labels))
    train, test = torch.arange(len(train_labels)), torch.arange(len(test_labels))
    if config.limit is not None:
        train = stratified_indices(train_labels, counts.limited, derived_seed(config.split_seed, "limit train"))
        test = stratified_indices(test_labels, counts.test, derived_seed(config.split_seed, "limit test"))
    validation = stratified_indices(train_labels[train], counts.validation, derived_seed(config.split_seed, "validation"))
    is_held_out = torch.zeros(len(train), dtype=torch.bool)
    is_held_out[validation] = True
    return train[~is_held_out], train[is_held_out], test


def augmentation(config: DatasetConfig) -> str:
    """The configured augmentation; "auto" is what suits the data set."""
    if config.augment != "auto":
        return config.augment
    return "crop_flip" if dataset_of(config.name).is_augmented else "none"


def class_counts(labels_N: Tensor) -> Counts:
    """Images of each class, by label."""
    return tuple(torch.bincount(labels_N).tolist())


def stratified_indices(labels_N: Tensor, counts: Counts, seed: int) -> Tensor:
    """Ascending indices of so many images of each class: the first of the class in a seeded order of all images."""
    shuffled = torch.randperm(len(labels_N), generator=torch.Generator().manual_seed(seed))
    labels = labels_N[shuffled]
    by_class = torch.argsort(labels, stable=True)
    sizes = torch.bincount(labels)
    starts = sizes.cumsum(0) - sizes  # of each class in `by_class`
    rank_in_class = torch.empty_like(labels)
    rank_in_class[by_class] = torch.arange(len(labels)) - starts[labels[by_class]]
    return shuffled[rank_in_class < torch.tensor(counts, dtype=torch.int64)[labels]].sort().values


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


def random_crop(padded_NCHW: Tensor, indices_B: Tensor, offsets_B2: Tensor, flips_B: Tensor, height: int, width: int) -> Tensor:
    """The images at the indices, each cropped at its offset (row, column) and mirrored where its flip is 1; one gather."""
    device = padded_NCHW.device
    rows = offsets_B2[:, 0, None] + torch.arange(height, device=device)
    columns = torch.arange(width, device=device)
    columns = offsets_B2[:, 1, None] + torch.where(flips_B[:, None] == 1, width - 1 - columns, columns)
    channels = torch.arange(padded_NCHW.shape[1], device=device)
    return padded_NCHW[
        indices_B[:, None, None, None], channels[None, :, None, None], rows[:, None, :, None], columns[:, None, None, :]
    ]
