"""The seeded batches of training, scoring and evaluation.

Shapes: B batch, C channels, H height, W width. A batch is float32, normalised.
All randomness comes from CPU generators seeded by (seed, purpose, epoch), so the order is the same on every device.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator

import torch
from torch import Tensor

from trainables.data.normalization import EVALUATION_BATCH, Normalization
from trainables.data.split_counts import scoring_counts
from trainables.data.splits import Data, Split, class_counts, stratified_indices
from trainables.errors import DataError
from trainables.runtime.group import ALONE, Group
from trainables.runtime.heartbeat import beat
from trainables.runtime.seeding import derived_seed


def training_batches(
    data: Data, batch_size: int, seed: int, epoch: int, group: Group = ALONE
) -> Generator[tuple[Tensor, Tensor], None, None]:
    """One epoch of shuffled, augmented, normalised batches, without the images that do not fill a last batch.

    Yields float32 (B, C, H, W) and int64 (B,) on the device, B always `batch_size`; of several workers each its part. The order
    and the augmentation of an image do not depend on the number of workers.

    Raises:
        DataError: there are fewer training images than one batch.
    """
    count = len(data.train)
    if count < batch_size:
        raise DataError(f"training.batch_size is {batch_size}, but there are only {count} training images")
    generator = torch.Generator().manual_seed(derived_seed(seed, "batches", epoch))
    whole = torch.randperm(count, generator=generator)[: count // batch_size * batch_size].split(batch_size)
    batch_indices = [group.part(indices) for indices in whole]
    if data.augment == "none":
        batches = data.train.batches(batch_indices)
    else:
        batches = data.train.augmented(batch_indices, data.augment == "crop_flip", generator)
    yield from normalized(batches, data.normalization)


def normalized(batches: Iterable[tuple[Tensor, Tensor]], normalization: Normalization) -> Iterator[tuple[Tensor, Tensor]]:
    """uint8 batches -> float32 batches, normalised on their device; each is a sign of life."""
    for images_BCHW, labels_B in batches:
        beat()
        yield normalization.apply(images_BCHW.float() / 255), labels_B


def scoring_batches(data: Data, batch_size: int, count: int, seed: int, round_: int) -> Iterator[tuple[Tensor, Tensor]]:
    """`count` seeded batches of training images without augmentation, drawn anew in every round.

    Batches of a round share no image if there are enough; a split smaller than a batch gives batches of all its images.
    """
    generator = torch.Generator().manual_seed(derived_seed(seed, "score", round_))
    order = torch.randperm(len(data.train), generator=generator)
    size = min(batch_size, len(order))
    batch_indices = [order.roll(-batch * size)[:size] for batch in range(count)]
    return normalized(data.train.batches(batch_indices), data.normalization)


def class_balanced_batches(
    data: Data, batch_size: int, per_class: int, seed: int, round_: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """`per_class` seeded training images of every class without augmentation, drawn anew in every round, in mixed order.

    They come in as few batches of at most `batch_size` as possible, of sizes that differ by one at most. Batches ordered by
    class, as in the public code of GraSP, would give BN statistics of half the classes. A class with fewer images gives all of
    them.
    """
    labels = data.train.labels.cpu()
    counts = scoring_counts(class_counts(labels), per_class)
    balanced = stratified_indices(labels, counts, derived_seed(seed, "score images", round_))
    generator = torch.Generator().manual_seed(derived_seed(seed, "score", round_))
    mixed = balanced[torch.randperm(len(balanced), generator=generator)]
    batch_indices = mixed.tensor_split(math.ceil(len(mixed) / batch_size))
    return normalized(data.train.batches(batch_indices), data.normalization)


def evaluation_batches(split: Split, normalization: Normalization, group: Group = ALONE) -> Iterator[tuple[Tensor, Tensor]]:
    """The split in order, in batches of EVALUATION_BATCH, normalised; of N workers each takes every N-th batch."""
    indices = torch.arange(len(split))
    batch_indices = [indices[start : start + EVALUATION_BATCH] for start in range(0, len(split), EVALUATION_BATCH)]
    return normalized(split.batches(batch_indices[group.rank :: group.workers]), normalization)
