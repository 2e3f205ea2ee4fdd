"""ImageNet's layout with seeded pictures: natural spectra, the usual sizes, and JPEG files of about 110 kB.

A picture is a sum of shifted noise fields of spectrum 1/f, plus fine noise that sets the size of its file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZES = ((500, 375), (375, 500), (500, 333), (500, 500), (400, 300), (640, 480), (333, 500), (250, 188))  # width, height
WEIGHTS = (0.40, 0.14, 0.14, 0.08, 0.08, 0.06, 0.06, 0.04)
FIELD = 1024
GRAIN = 7.2  # deviation of the fine noise
QUALITY = 90


def write_imagenet(root: Path, classes: int, per_class: int, validation_per_class: int) -> int:
    """Writes train/WNID/*.JPEG and val/WNID/*.JPEG. Returns the mean size of a file in bytes."""
    draw = np.random.default_rng(0)
    fields = [_field(draw) for _ in range(4)]
    total = 0
    for split, count in (("train", per_class), ("val", validation_per_class)):
        for label in range(classes):
            folder = root / split / f"n{label:08}"
            folder.mkdir(parents=True)
            for number in range(count):
                file = folder / f"{folder.name}_{number}.JPEG"
                _picture(fields, draw).save(file, quality=QUALITY)
                total += file.stat().st_size
    return total // (classes * (per_class + validation_per_class))


def _field(draw: np.random.Generator) -> NDArray[np.float32]:
    """float32 (FIELD, FIELD) of deviation 1 whose amplitude falls as 1/f."""
    frequencies = np.hypot(*np.meshgrid(np.fft.fftfreq(FIELD), np.fft.rfftfreq(FIELD), indexing="ij"))
    frequencies[0, 0] = np.inf
    spectrum = np.fft.rfft2(draw.standard_normal((FIELD, FIELD))) / frequencies
    field = np.fft.irfft2(spectrum, s=(FIELD, FIELD))
    return np.asarray(field / field.std(), dtype=np.float32)


def _picture(fields: list[NDArray[np.float32]], draw: np.random.Generator) -> Image.Image:
    width, height = SIZES[draw.choice(len(SIZES), p=WEIGHTS)]
    channels = []
    shared = _window(fields, draw, width, height)
    for _ in range(3):
        light = 120 + 45 * shared + 15 * _window(fields, draw, width, height)
        channels.append(light)
    grain = draw.standard_normal((height, width, 1), dtype=np.float32) * GRAIN
    return Image.fromarray(np.clip(np.stack(channels, axis=2) + grain, 0, 255).astype(np.uint8))


def _window(fields: list[NDArray[np.float32]], draw: np.random.Generator, width: int, height: int) -> NDArray[np.float32]:
    top, left = draw.integers(FIELD - height), draw.integers(FIELD - width)
    return fields[draw.integers(len(fields))][top : top + height, left : left + width]
