"""Image files -> pixels: any format that PIL reads, grey or colour, as uint8 RGB in the order (3, H, W).

Read by: datasets.py (whole sets), streaming.py (batches). PIL is imported when the first file is opened.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.failures import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image


def rgb_image(path: str | Path) -> Image:
    """The image of a file with three channels, whatever it holds.

    Raises:
        DataError: it cannot be decoded.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            return file.convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(f"cannot decode {str(path)!r}: {error}") from error


def square(path: Path, size: int) -> NDArray[Any]:
    """uint8 (3, size, size): the shorter side scaled to `size`, the middle cut out."""
    import numpy as np
    from PIL import Image, ImageOps

    image = rgb_image(path)
    if image.size != (size, size):
        image = ImageOps.fit(image, (size, size), method=Image.Resampling.BILINEAR)
    return np.asarray(image).transpose(2, 0, 1)


def squares(paths: Sequence[Path], size: int) -> NDArray[Any]:
    """uint8 (N, 3, size, size), decoded by as many threads as there are processors."""
    import numpy as np

    images = np.empty((len(paths), 3, size, size), dtype=np.uint8)

    def decode(index: int) -> None:
        images[index] = square(paths[index], size)

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        list(pool.map(decode, range(len(paths)), chunksize=256))
    return images
