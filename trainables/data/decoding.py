"""Image files -> pixels: any raster format that PIL reads, grey or colour, as uint8 RGB in the order (3, H, W).

Grey and palettes become RGB; of 16 bits the high byte is used; values of unknown range (32-bit integers, floats) are rejected.
Transparency, colour profiles and the EXIF orientation are ignored, as torchvision does; of several frames the first is read.
PIL is imported when the first file is opened.
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
from trainables.runtime.heartbeat import beat
from trainables.runtime.machine import processors

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

MAX_PIXELS = 178_956_970  # of one image, PIL's own limit against decompression bombs
MAX_NAMES = 5  # of damaged files in one message
# PIL's modes of at most so many bits.
EIGHT_BITS = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"}
SIXTEEN_BITS = {("PNG", "I;16"), ("PPM", "I")}  # formats and modes of values in 0..65535
OTHER_PROGRAMS = {"EPS"}  # formats that PIL hands to another program
HEAD_BYTES = 4096  # enough for the header of a file
PNG_OF_SIXTEEN_BIT_GREY = re.compile(rb"\x89PNG\r\n\x1a\n....IHDR.{8}\x10\x00", re.DOTALL)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageHeader:
    """The header of an image file.

    Attributes:
        mode: PIL's name of the kind of pixels, such as "RGB", "P" or "I;16".
        frames: more than one in an animation, of which the first is read.
        orientation: EXIF's number; viewers rotate photographs with other numbers than 1, this project does not.
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
    """Reads the header of an image file without decoding it.

    Raises:
        DataError: the file is not an image, or of a kind that is rejected.
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
    """The image of a file, converted to three channels.

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
            file.info.pop("transparency", None)  # else PIL warns about transparent palettes
            image: Image = file.convert("RGB")
            return image
    except Exception as error:
        raise _undecodable(path, error) from error


def _pillow() -> Any:
    """PIL.Image, with truncated files as errors, whatever a user's module has set."""
    from PIL import Image, ImageFile

    ImageFile.LOAD_TRUNCATED_IMAGES = False
    _ignore_warning(Image.DecompressionBombWarning)  # MAX_PIXELS is the limit
    return Image


@cache
def _ignore_warning(category: type[Warning]) -> None:
    warnings.filterwarnings("ignore", category=category)


def is_sixteen_bit_grey(head: bytes) -> bool:
    """Whether the head of a file is that of a PNG or PGM of one 16-bit channel."""
    if head[:2] in (b"P2", b"P5"):
        maximum = re.sub(rb"#[^\r\n]*", b"", head).split()[3:4]
        return bool(maximum) and maximum[0].isdigit() and int(maximum[0]) > 255
    return PNG_OF_SIXTEEN_BIT_GREY.match(head) is not None


def _check(file: Image) -> None:
    """Raises DataError for an image that opens and must not be decoded."""
    if file.format in OTHER_PROGRAMS:
        raise DataError(f"must be of pixels, got {file.format}", "save it as PNG")
    if not 0 < file.width * file.height <= MAX_PIXELS:
        raise _size_error(file.width * file.height)
    if file.mode not in EIGHT_BITS and (file.format, file.mode) not in SIXTEEN_BITS:
        raise DataError(
            f"must have values of a known range, got {file.format} of mode {file.mode!r}", "save it as PNG with 8 or 16 bits"
        )


def _size_error(pixels: int) -> DataError:
    return DataError(f"must have 1 to {MAX_PIXELS:,} pixels, got {pixels:,}", "scale it down")


def _undecodable(path: str | Path, error: Exception) -> DataError:
    """The error with the file's name; PIL raises anything for a damaged file, from SyntaxError to zlib.error."""
    kind = type(error).__name__
    if kind == "UnidentifiedImageError":
        with open(path, "rb") as file:
            error = DataError(f"it must begin like an image, got {file.read(24)!r}", "replace or remove it")
    elif kind == "DecompressionBombError" and (pixels := re.search(r"\d+", str(error))):
        error = _size_error(int(pixels[0]))
    if isinstance(error, DataError):
        return DataError(f"cannot decode {str(path)!r}: {error.message}", error.hint)
    reason = str(error) if isinstance(error, OSError | ValueError) else f"{kind}: {error}"
    return DataError(f"cannot decode {str(path)!r}: {reason or kind}")


def decode_square(path: Path, size: int) -> NDArray[Any]:
    """uint8 (3, size, size): the central square, with the shorter side scaled to `size`."""
    import numpy as np
    from PIL import Image, ImageOps

    image = rgb_image(path)
    if image.size != (size, size):
        image = ImageOps.fit(image, (size, size), method=Image.Resampling.BILINEAR)
    return np.asarray(image).transpose(2, 0, 1)


def decode_squares(paths: Sequence[Path], size: int) -> NDArray[Any]:
    """uint8 (N, 3, size, size), decoded by one thread for each usable processor.

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
        errors = []
        for error in pool.map(decode, range(len(paths)), chunksize=256):
            beat()
            errors += [error] if error else []
    if errors:
        named = errors[:MAX_NAMES]
        more = f"; and {len(errors) - MAX_NAMES} more" if len(errors) > MAX_NAMES else ""
        raise DataError("; ".join(error.message for error in named) + more, _joined_hints(named)) from errors[0]
    return images


def _joined_hints(errors: Sequence[DataError]) -> str:
    return "; ".join(dict.fromkeys(error.hint for error in errors if error.hint))
