"""Images that do not fit a device: files decoded batch by batch in worker processes, the same bits for any number of them.

Shapes: N images of a split, B batch. A place is an image's index in its split. What is random about an image follows from a
seed that is drawn for its place before the work is shared out, so workers carry no random state.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
TRIES = 10
LONGEST = 1000  # times its shorter side, of an image that is scaled as a whole
SHORTER_SIDE = 256 / 224  # of an image that is evaluated, before its middle of 1 is cut out
PIECE = 32  # images that a worker decodes at once: one batch occupies several workers, and little shared memory is needed
PREFETCHED = 4  # pieces that each worker is ahead
CPU_WORKERS = 2  # more would take the processors away from the training itself


@dataclass(frozen=True, kw_only=True, slots=True)
class Stream:
    """The image files of a split, decoded when a batch is asked for.

    Attributes:
        names: (N,) file names below root. One array of bytes: a million strings would be copied into every worker.
        side: height and width of the decoded images.
        workers: processes that decode; 0 decodes in this one.
    """

    root: Path
    names: NDArray[np.bytes_]
    side: int
    device: str
    workers: int

    def chosen(self, places: Tensor | slice) -> Stream:
        """The stream of these images alone."""
        return replace(self, names=self.names[places if isinstance(places, slice) else places.numpy()])

    def batches(self, parts: Sequence[Tensor]) -> Iterator[Tensor]:
        """The images at each part's places, scaled and cut in the middle: uint8 (B, 3, side, side) on the device.

        Raises:
            DataError: a file cannot be decoded.
        """
        return self._decoded(parts, None, flip=False)

    def augmented(self, parts: Sequence[Tensor], flip: bool, generator: torch.Generator) -> Iterator[Tensor]:
        """The same, each image a random crop, and mirrored at random with `flip`; drawn anew for all places at every call."""
        return self._decoded(parts, torch.randint(1 << 62, (len(self.names),), generator=generator), flip)

    def _decoded(self, parts: Sequence[Tensor], seeds_N: Tensor | None, flip: bool) -> Iterator[Tensor]:
        pieces = [math.ceil(len(part) / PIECE) for part in parts]
        workers = min(self.workers, sum(pieces))
        loader = DataLoader(
            _Decoder(self, flip),
            batch_size=None,
            sampler=_tasks(parts, seeds_N),
            num_workers=workers,
            prefetch_factor=PREFETCHED if workers else None,
            pin_memory=self.device == "cuda",
            generator=torch.Generator(),  # else a loader draws from the generator that dropout draws from
        )
        decoded = iter(loader)
        for count in pieces:
            yield torch.cat([self._on_device(next(decoded)) for _ in range(count)])

    def _on_device(self, piece: Tensor | DataError) -> Tensor:
        if isinstance(piece, DataError):
            raise piece
        return piece.to(self.device, non_blocking=True)


Task = tuple[list[int], list[int] | None]  # places and their seeds


def _tasks(parts: Sequence[Tensor], seeds_N: Tensor | None) -> Iterator[Task]:
    for part in parts:
        for piece in part.split(PIECE):
            yield piece.tolist(), None if seeds_N is None else seeds_N[piece].tolist()


class _Decoder(Dataset[Any]):
    """What a worker does: a task -> uint8 (B, 3, side, side), or the failure, which a loader would wrap in a traceback."""

    def __init__(self, stream: Stream, flip: bool) -> None:
        self.stream = stream
        self.flip = flip

    def __getitem__(self, task: Task) -> Tensor | DataError:
        places, seeds = task
        side = self.stream.side
        images = np.empty((len(places), 3, side, side), dtype=np.uint8)
        try:
            for index, place in enumerate(places):
                image = rgb_image(self.stream.root / os.fsdecode(self.stream.names[place]))
                cut = middle(image, side) if seeds is None else random_crop(image, side, seeds[index], self.flip)
                images[index] = np.asarray(cut).transpose(2, 0, 1)
        except DataError as error:
            return error
        return torch.from_numpy(images)


def middle(image: Image, side: int) -> Image:
    """The shorter side scaled to side * 256 / 224, the middle of side x side cut out: how ImageNet is evaluated."""
    from PIL.Image import Resampling

    shorter = round(side * SHORTER_SIDE)
    width, height = image.size
    scaled = (shorter, shorter * height // width) if width <= height else (shorter * width // height, shorter)
    left, top = (round((length - side) / 2) for length in scaled)
    if max(image.size) > LONGEST * min(image.size):
        return _middle_of_long(image, scaled, (left, top), side)
    return image.resize(scaled, Resampling.BILINEAR).crop((left, top, left + side, top + side))


def _middle_of_long(image: Image, scaled: tuple[int, int], corner: tuple[int, int], side: int) -> Image:
    """The same pixels without those far from the middle, which could be gigabytes: an image of 1 x 100,000 is a small file."""
    from PIL.Image import Resampling

    begins, ends, steps = [], [], []
    for length, target, begin in zip(image.size, scaled, corner, strict=True):
        margin = math.ceil(max(1.0, target / length)) + 1  # as far as the filter reaches, in scaled pixels
        begins.append(max(begin - margin, 0))
        ends.append(min(begin + side + margin, target))
        steps.append(length / target)
    box = [place * step for place, step in zip((*begins, *ends), steps * 2, strict=True)]
    columns, rows = ends[0] - begins[0], ends[1] - begins[1]
    part = image.resize(
        (columns, rows), Resampling.BILINEAR, box=(box[0], box[1], min(box[2], image.width), min(box[3], image.height))
    )
    left, top = corner[0] - begins[0], corner[1] - begins[1]
    return part.crop((left, top, left + side, top + side))


def random_crop(image: Image, side: int, seed: int, flip: bool) -> Image:
    """A random box of the image, scaled to side x side, and mirrored for half of the seeds with `flip`."""
    from PIL.Image import Resampling, Transpose

    draw = random.Random(seed)
    mirrored = draw.random() < 0.5 and flip
    cut = image.crop(random_box(*image.size, draw)).resize((side, side), Resampling.BILINEAR)
    return cut.transpose(Transpose.FLIP_LEFT_RIGHT) if mirrored else cut


def random_box(width: int, height: int, draw: random.Random) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a box with an area in AREA of the image's and a ratio in RATIO, uniform and log-uniform.

    Where ten tries do not fit into the image, the largest box in its middle with a ratio in RATIO.
    Source: Szegedy et al., arXiv:1409.4842, section 6, in the form of torchvision's RandomResizedCrop.
    """
    for _ in range(TRIES):
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
    return np.array([os.fsencode(name) for name in names], dtype=np.bytes_)


def decoding_workers(device: str, threads: int) -> int:
    """Worker processes of a trial with so many threads: beside a GPU as many, on a CPU at most two."""
    return threads if device == "cuda" else min(threads, CPU_WORKERS)
