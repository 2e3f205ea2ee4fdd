"""Image files -> pixels: any raster format that PIL reads, grey or colour, as uint8 RGB in the order (3, H, W).

What a file holds beside 8-bit RGB: grey and palettes become RGB; of 16 bits the high byte counts; values of unknown range
(32-bit integers, floats) are refused. Transparency, colour profiles and the EXIF orientation are ignored, as torchvision does;
of several frames the first counts. PIL is imported when the first
file is opened.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.errors import DataError
from trainables.runtime.machine import processors

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

MAX_PIXELS = 178_956_970  # of one image: where PIL too takes a file for an attack on memory
NAMED = 5  # damaged files that one message names
EIGHT_BITS = {
    "1",
    "L",
    "LA",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBa",
    "RGBX",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
}  # modes of at most so many
SIXTEEN_BITS = {("PNG", "I;16"), ("PPM", "I")}  # formats and modes of values in 0..65535
OTHER_PROGRAMS = {"EPS"}  # formats that PIL hands to another program
HEAD_BYTES = 4096  # of a file, enough for its header
PNG_OF_SIXTEEN_BIT_GREY = re.compile(rb"\x89PNG\r\n\x1a\n....IHDR.{8}\x10\x00", re.DOTALL)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageHeader:
    """What a file says of its image, without decoding it.

    Attributes:
        mode: PIL's name of the kind of pixels, such as "RGB", "P" or "I;16".
        frames: more than one in an animation, of which the first is read.
        orientation: EXIF's number; other than 1 in a photograph that viewers turn, and that is read as it is stored.
        transparent: has an alpha channel or a transparent colour, which is ignored.
    """

    format: str
    mode: str
    width: int
    height: int
    frames: int
    orientation: int
    transparent: bool


def image_header(path: str | Path) -> ImageHeader:
    """The header of an image file.

    Raises:
        DataError: it is no image, or none that is read.
    """
    pillow = _pillow()
    try:
        with open(path, "rb") as data, pillow.open(data) as file:  # PIL does not close what it cannot identify
            _check(file)
            return ImageHeader(
                format=str(file.format),
                mode=file.mode,
                width=file.width,
                height=file.height,
                frames=1 if file.format == "MPO" else getattr(file, "n_frames", 1),  # previews of a camera
                orientation=int(file.getexif().get(0x0112, 1)) if "exif" in file.info else 1,
                transparent=file.has_transparency_data,
            )
    except Exception as error:
        raise _undecodable(path, error) from error


def rgb_image(path: str | Path) -> Image:
    """The image of a file with three channels, whatever it holds.

    Raises:
        DataError: it cannot be decoded, or its pixels have no known range.
    """
    pillow = _pillow()
    try:
        with open(path, "rb") as data, pillow.open(data) as file:
            _check(file)
            if (file.format, file.mode) in SIXTEEN_BITS:
                import numpy as np

                grey: Image = pillow.fromarray((np.asarray(file) >> 8).astype(np.uint8))
                return grey.convert("RGB")
            file.info.pop("transparency", None)  # else PIL warns of a palette that has some
            image: Image = file.convert("RGB")
            return image
    except Exception as error:
        raise _undecodable(path, error) from error


def _pillow() -> Any:
    """PIL.Image, set up so that a truncated file is an error whatever the user's modules made of it."""
    from PIL import Image, ImageFile

    ImageFile.LOAD_TRUNCATED_IMAGES = False
    _ignore_warning(Image.DecompressionBombWarning)  # MAX_PIXELS is the limit
    return Image


@cache
def _ignore_warning(category: type[Warning]) -> None:
    warnings.filterwarnings("ignore", category=category)


def is_sixteen_bit_grey(head: bytes) -> bool:
    """Whether a file begins like an image of one channel of 16 bits, PNG or PGM."""
    if head[:2] in (b"P2", b"P5"):
        maximum = re.sub(rb"#[^\r\n]*", b"", head).split()[3:4]
        return bool(maximum) and maximum[0].isdigit() and int(maximum[0]) > 255
    return PNG_OF_SIXTEEN_BIT_GREY.match(head) is not None


def _check(file: Image) -> None:
    """Raises ValueError for an image that opens and must not be decoded."""
    if file.format in OTHER_PROGRAMS:
        raise ValueError(f"must be of pixels, got {file.format}; save it as PNG")
    if not 0 < file.width * file.height <= MAX_PIXELS:
        raise ValueError(_size_refusal(file.width * file.height))
    if file.mode not in EIGHT_BITS and (file.format, file.mode) not in SIXTEEN_BITS:
        raise ValueError(
            f"must have values of a known range, got {file.format} of mode {file.mode!r}; save it as PNG with 8 or 16 bits"
        )


def _size_refusal(pixels: int) -> str:
    return f"must have 1 to {MAX_PIXELS:,} pixels, got {pixels:,}; scale it down"


def _undecodable(path: str | Path, error: Exception) -> DataError:
    """PIL's readers raise anything for a damaged file: SyntaxError, struct.error, IndexError, zlib.error, MemoryError..."""
    kind = type(error).__name__
    reason = str(error) if isinstance(error, OSError | ValueError) else f"{kind}: {error}"
    if kind == "UnidentifiedImageError":
        with open(path, "rb") as file:
            reason = f"it must begin like an image, got {file.read(24)!r}; replace or remove it"
    elif kind == "DecompressionBombError" and (pixels := re.search(r"\d+", str(error))):
        reason = _size_refusal(int(pixels[0]))
    return DataError(f"cannot decode {str(path)!r}: {reason or kind}")


def decode_square(path: Path, size: int) -> NDArray[Any]:
    """uint8 (3, size, size): the shorter side scaled to `size`, the middle cut out."""
    import numpy as np
    from PIL import Image, ImageOps

    image = rgb_image(path)
    if image.size != (size, size):
        image = ImageOps.fit(image, (size, size), method=Image.Resampling.BILINEAR)
    return np.asarray(image).transpose(2, 0, 1)


def decode_squares(paths: Sequence[Path], size: int) -> NDArray[Any]:
    """uint8 (N, 3, size, size), decoded by as many threads as there are processors to use.

    Raises:
        DataError: files cannot be decoded; names the first five.
    """
    import numpy as np

    images = np.empty((len(paths), 3, size, size), dtype=np.uint8)

    def decode(index: int) -> DataError | None:
        try:
            images[index] = decode_square(paths[index], size)
        except DataError as error:
            return error
        return None

    with ThreadPoolExecutor(max_workers=processors()) as pool:
        errors = [error for error in pool.map(decode, range(len(paths)), chunksize=256) if error]
    if errors:
        more = f"; and {len(errors) - NAMED} more" if len(errors) > NAMED else ""
        raise DataError("; ".join(map(str, errors[:NAMED])) + more) from errors[0]
    return images
