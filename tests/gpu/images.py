"""Images that can be learned, made from a seed: no data set has to be carried along.

Each class has a coarse random pattern; an image is its class's pattern with noise. Decoded as from an image folder, in the file
that a node gets which has no data set of its own.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from trainables.config.trial import DatasetConfig
from trainables.data.source import DatasetSource

CLASSES = 10
COARSE = 4  # rows and columns of a pattern
NOISE = 96  # levels of 256; the others are those of a pattern


@dataclass(frozen=True, kw_only=True)
class Images:
    """A decoded data set.

    Attributes:
        digest: 32 hex digits over the file.
    """

    source: DatasetSource
    digest: str

    def config(self, validation: float = 0.2) -> DatasetConfig:
        return DatasetConfig(name=self.source.name, image_size=self.source.image_size, validation=validation)


def write_images(folder: Path, side: int, train: int, test: int) -> Images:
    """Images uint8 (N, 3, side, side) of CLASSES classes; the same for the same arguments, on every machine."""
    generator = np.random.default_rng(0)
    patterns = generator.integers(0, 256 - NOISE, (CLASSES, 3, COARSE, COARSE), dtype=np.uint8)
    arrays: dict[str, NDArray[np.generic]] = {"num_classes": np.array(CLASSES)}
    for split, count in (("train", train), ("test", test)):
        labels = np.arange(count, dtype=np.int64) % CLASSES
        noise = generator.integers(0, NOISE, (count, 3, side, side), dtype=np.uint8)
        arrays[f"{split}_images"] = patterns.repeat(side // COARSE, 2).repeat(side // COARSE, 3)[labels] + noise
        arrays[f"{split}_labels"] = labels
    file = folder / f"images-{side}-{train}.safetensors"
    save_file(arrays, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:32]
    return Images(source=DatasetSource(name="image_folder", image_size=side, decoded=str(file)), digest=digest)
