"""Images that do not fit a device: read batch by batch in workers, with the same result for any number of them.

Shapes: N images of a split, B batch. The randomness of an image follows from a seed that is drawn for its index before the work
is distributed, so workers carry no random state.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from trainables.data.decoding import rgb_image
from trainables.data.normalization import Normalization
from trainables.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGENET_NORMALIZATION = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))  # as published, not measured
AREA = (0.08, 1.0)  # of a random crop, as a share of the image
RATIO = (3 / 4, 4 / 3)  # of its width to its height
MAX_TRIES = 10
MAX_ASPECT_RATIO = 1000  # of an image that is scaled as a whole
SHORTER_SIDE = 256 / 224  # of an evaluated image, relative to its center crop
CHUNK = 32  # images that a worker decodes at once: one batch occupies several workers, and little shared memory is needed
PREFETCHED_CHUNKS = 4  # that each worker decodes ahead
CPU_WORKERS = 2  # more would take processors from the training itself


class Images(Protocol):
    """N images that workers read one by one."""

    def __len__(self) -> int: ...

    def select(self, indices: Tensor | slice) -> Images:
        """These images alone."""
        ...

    def image(self, index: int) -> Image:
        """The RGB image at an index. Raises DataError if it cannot be read."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFiles:
    """Image files, decoded whenever they are read.

    Attributes:
        names: (N,) file names below root. One array of bytes: a million strings would be copied into every worker.
    """

    root: Path
    names: NDArray[np.bytes_]

    def __len__(self) -> int:
        return len(self.names)

    def select(self, indices: Tensor | slice) -> ImageFiles:
        return replace(self, names=self.names[indices if isinstance(indices, slice) else indices.numpy()])

    def image(self, index: int) -> Image:
        return rgb_image(self.root / os.fsdecode(self.names[index]))


@dataclass(frozen=True, kw_only=True, slots=True)
class Stream:
    """The images of a split, read and cropped when a batch is requested.

    Attributes:
        side: height and width of the crops.
        workers: processes that read; 0 reads in this one.
    """

    images: Images
    side: int
    device: str
    workers: int

    def select(self, indices: Tensor | slice) -> Stream:
        """The stream of these images alone."""
        return replace(self, images=self.images.select(indices))

    def batches(self, batch_indices: Sequence[Tensor]) -> Iterator[Tensor]:
        """The center crops of each batch: uint8 (B, 3, side, side) on the device.

        Raises:
            DataError: a file cannot be decoded.
        """
        return self._decoded(batch_indices, None, flip=False)

    def augmented(self, batch_indices: Sequence[Tensor], flip: bool, generator: torch.Generator) -> Iterator[Tensor]:
        """Random resized crops of each batch, with `flip` mirrored at random; drawn anew for all N images at every call."""
        return self._decoded(batch_indices, torch.randint(1 << 62, (len(self.images),), generator=generator), flip)

    def _decoded(self, batch_indices: Sequence[Tensor], seeds_N: Tensor | None, flip: bool) -> Iterator[Tensor]:
        chunk_counts = [math.ceil(len(indices) / CHUNK) for indices in batch_indices]
        workers = min(self.workers, sum(chunk_counts))
        loader = DataLoader(
            _Decoder(self, flip),
            batch_size=None,
            sampler=_tasks(batch_indices, seeds_N),
            num_workers=workers,
            prefetch_factor=PREFETCHED_CHUNKS if workers else None,
            pin_memory=self.device == "cuda",
            generator=torch.Generator(),  # else a loader draws from the generator that dropout draws from
        )
        decoded = iter(loader)
        for count in chunk_counts:
            yield torch.cat([self._on_device(next(decoded)) for _ in range(count)])

    def _on_device(self, chunk: Tensor | DataError) -> Tensor:
        if isinstance(chunk, DataError):
            raise chunk
        return chunk.to(self.device, non_blocking=True)


Task = tuple[list[int], list[int] | None]  # indices of images and their seeds


def _tasks(batch_indices: Sequence[Tensor], seeds_N: Tensor | None) -> Iterator[Task]:
    for indices in batch_indices:
        for chunk in indices.split(CHUNK):
            yield chunk.tolist(), None if seeds_N is None else seeds_N[chunk].tolist()


class _Decoder(Dataset[Any]):
    """The work of a worker: a task -> uint8 (B, 3, side, side), or the error, which a loader would wrap in a traceback."""

    def __init__(self, stream: Stream, flip: bool) -> None:
        self.stream = stream
        self.flip = flip

    def __getitem__(self, task: Task) -> Tensor | DataError:
        indices, seeds = task
        side = self.stream.side
        images = np.empty((len(indices), 3, side, side), dtype=np.uint8)
        try:
            for position, index in enumerate(indices):
                image = self.stream.images.image(index)
                if seeds is None:
                    crop = center_crop(image, side)
                else:
                    crop = random_resized_crop(image, side, seeds[position], self.flip)
                images[position] = np.asarray(crop).transpose(2, 0, 1)
        except DataError as error:
            return error
        return torch.from_numpy(images)


def center_crop(image: Image, side: int) -> Image:
    """The central side x side of the image, whose shorter side is scaled to side * 256 / 224: how ImageNet is evaluated."""
    from PIL.Image import Resampling

    scaled = scaled_size(image.size, shorter_side(side))
    left, top = (round((length - side) / 2) for length in scaled)
    if max(image.size) > MAX_ASPECT_RATIO * min(image.size):
        return _center_crop_of_long(image, scaled, (left, top), side)
    return image.resize(scaled, Resampling.BILINEAR).crop((left, top, left + side, top + side))


def shorter_side(side: int) -> int:
    """Of an image whose central side x side is evaluated, in pixels."""
    return round(side * SHORTER_SIDE)


def scaled_size(size: tuple[int, int], shorter: int) -> tuple[int, int]:
    """Width and height of an image of this size when its shorter side is scaled to `shorter`; itself where it has that."""
    width, height = size
    return (shorter, shorter * height // width) if width <= height else (shorter * width // height, shorter)


def _center_crop_of_long(image: Image, scaled: tuple[int, int], corner: tuple[int, int], side: int) -> Image:
    """The same pixels without scaling the whole image: a small file of 1 x 100,000 pixels would take gigabytes."""
    from PIL.Image import Resampling

    starts, stops, steps = [], [], []
    for length, target, start in zip(image.size, scaled, corner, strict=True):
        margin = math.ceil(max(1.0, target / length)) + 1  # as far as the filter reaches, in scaled pixels
        starts.append(max(start - margin, 0))
        stops.append(min(start + side + margin, target))
        steps.append(length / target)
    box = [edge * step for edge, step in zip((*starts, *stops), steps * 2, strict=True)]
    columns, rows = stops[0] - starts[0], stops[1] - starts[1]
    region = image.resize(
        (columns, rows), Resampling.BILINEAR, box=(box[0], box[1], min(box[2], image.width), min(box[3], image.height))
    )
    left, top = corner[0] - starts[0], corner[1] - starts[1]
    return region.crop((left, top, left + side, top + side))


def random_resized_crop(image: Image, side: int, seed: int, flip: bool) -> Image:
    """A random box of the image, scaled to side x side, and with `flip` mirrored for half of the seeds."""
    from PIL.Image import Resampling, Transpose

    draw = random.Random(seed)
    mirrored = draw.random() < 0.5 and flip
    box = random_resized_crop_box(*image.size, draw)
    crop = image.crop(box).resize((side, side), Resampling.BILINEAR)
    return crop.transpose(Transpose.FLIP_LEFT_RIGHT) if mirrored else crop


def random_resized_crop_box(width: int, height: int, draw: random.Random) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a box with an area in AREA of the image's and a ratio in RATIO, uniform and log-uniform.

    If MAX_TRIES boxes do not fit into the image, it is the largest central box with a ratio in RATIO.
    Source: Szegedy et al., arXiv:1409.4842, section 6, in the form of torchvision's RandomResizedCrop.
    """
    for _ in range(MAX_TRIES):
        area = width * height * (AREA[0] + (AREA[1] - AREA[0]) * draw.random())
        ratio = RATIO[0] * (RATIO[1] / RATIO[0]) ** draw.random()
        columns, rows = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < columns <= width and 0 < rows <= height:
            left, top = int(draw.random() * (width - columns + 1)), int(draw.random() * (height - rows + 1))
            return left, top, left + columns, top + rows
    columns, rows = min(width, round(height * RATIO[1])), min(height, round(width / RATIO[0]))
    left, top = (width - columns) // 2, (height - rows) // 2
    return left, top, left + columns, top + rows


def encoded_names(names: Sequence[str]) -> NDArray[np.bytes_]:
    """The names as one array for `ImageFiles`."""
    return np.array([os.fsencode(name) for name in names], dtype=np.bytes_)


def decoding_workers(device: str, threads: int) -> int:
    """Worker processes of a trial: as many as its threads with a GPU, at most CPU_WORKERS without one."""
    return threads if device == "cuda" else min(threads, CPU_WORKERS)
