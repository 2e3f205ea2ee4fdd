"""The contact sheet: an image file that shows, for some classes, decoded images and random augmentations of the first one.

Pixels are those before normalisation. The augmentation is drawn by the code of training.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trainables.data.splits import Data, Split
from trainables.runtime.seeding import derived_seed

if TYPE_CHECKING:
    from PIL.Image import Image

ROWS = 10  # classes
PLAIN = 4  # decoded images of a class, of which the first is augmented
DRAWS = 5
CELL = (72, 112)  # smallest and largest side of an image on the sheet, in pixels
GAP, HEAD, FONT = 6, 44, 14  # pixels
MAX_TITLE = 28  # characters


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A class with some of its images: uint8 (n, C, H, W) each; `augmented` is of the first of `plain`."""

    title: str
    plain: Tensor
    augmented: Tensor


def sheet_rows(data: Data, classes: Sequence[str], seed: int = 0) -> list[Row]:
    """Rows of at most ROWS classes, evenly spread over the labels."""
    labels = data.train.labels.cpu()
    present = sorted(set(labels.tolist()))
    shown = min(ROWS, len(present))
    return [_row(data, classes, present[index * len(present) // shown], seed) for index in range(shown)]


def _row(data: Data, classes: Sequence[str], label: int, seed: int) -> Row:
    labels = data.train.labels.cpu()
    indices = torch.where(labels == label)[0]
    generator = torch.Generator().manual_seed(derived_seed(seed, "contact sheet", label))
    sample = indices[torch.randperm(len(indices), generator=generator)[:PLAIN]]
    stream = None if data.train.stream is None else data.train.stream.select(sample)
    images = data.train.images[sample] if stream is None else data.train.images
    split = Split(images=images, labels=labels[sample], stream=stream)
    all_images, first_image = [torch.arange(len(sample))], [torch.zeros(1, dtype=torch.int64)]
    plain = torch.cat([batch.cpu() for batch, _ in split.batches(all_images)])
    draws = []
    if data.augment != "none":
        flip = data.augment == "crop_flip"
        draws = [batch.cpu() for _ in range(DRAWS) for batch, _ in split.augmented(first_image, flip, generator)]
    title = f"{classes[label]} ({len(indices):,})"
    return Row(title=title, plain=plain, augmented=torch.cat(draws) if draws else plain[:0])


def contact_sheet(data: Data, classes: Sequence[str]) -> bytes:
    """The contact sheet as PNG."""
    from PIL import Image, ImageDraw, ImageFont

    rows = sheet_rows(data, classes)
    height, width = rows[0].plain.shape[2:]
    scale = min(max(1.0, CELL[0] / max(height, width)), CELL[1] / max(height, width))
    scale = float(round(scale)) if scale > 1 else scale  # whole factors keep pixels square
    cell = (max(1, round(width * scale)), max(1, round(height * scale)))
    font = ImageFont.load_default(size=FONT)
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    titles = [row.title if len(row.title) <= MAX_TITLE else row.title[:12] + "..." + row.title[-13:] for row in rows]
    left = GAP + int(max(measure.textlength(title, font=font) for title in titles)) + 2 * GAP
    has_draws = any(len(row.augmented) for row in rows)
    columns = PLAIN + (DRAWS if has_draws else 0)
    gutter = 4 * GAP if has_draws else 0
    sheet = Image.new(
        "RGB", (left + columns * (cell[0] + GAP) + gutter + GAP, HEAD + len(rows) * (cell[1] + GAP) + GAP), "white"
    )
    draw = ImageDraw.Draw(sheet)
    draw.text((left, HEAD - FONT - 2 * GAP), f"training images, {width} x {height} pixels", fill="black", font=font)
    if has_draws:
        start = left + PLAIN * (cell[0] + GAP) + gutter
        draw.text((start, HEAD - FONT - 2 * GAP), f"the first one, augmented ({data.augment})", fill="black", font=font)
    for index, (row, title) in enumerate(zip(rows, titles, strict=True)):
        top = HEAD + index * (cell[1] + GAP)
        draw.text((GAP, top + cell[1] // 2 - FONT // 2), title, fill="black", font=font)
        for column, image in enumerate([*row.plain, *[None] * (PLAIN - len(row.plain)), *row.augmented]):
            if image is not None:
                start = left + column * (cell[0] + GAP) + (gutter if column >= PLAIN else 0)
                sheet.paste(_picture(image, cell), (start, top))
    content = io.BytesIO()
    sheet.save(content, format="PNG", optimize=True)
    return content.getvalue()


def _picture(image_CHW: Tensor, size: tuple[int, int]) -> Image:
    """One image at the size of a cell: grey for one channel, colour for three, else the mean of the channels."""
    from PIL import Image
    from PIL.Image import Resampling

    pixels: Any = image_CHW.numpy()
    if len(pixels) not in (1, 3):
        pixels = pixels.mean(axis=0, keepdims=True).round().astype("uint8")
    picture = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    smaller = size[0] < picture.width
    return picture.convert("RGB").resize(size, Resampling.LANCZOS if smaller else Resampling.NEAREST)
