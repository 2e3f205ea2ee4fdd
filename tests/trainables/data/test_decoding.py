"""Decoding of random images and random damages: the exact pixels, or an error that names the file."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageFile

from tests.support.image_zoo import PIXELS
from tests.support.written_images import Array, chunk, flat, palette, png, ppm, rgb, saved, turned
from tests.trainables.data.test_image_files import data_set
from trainables.data import datasets, streaming
from trainables.data.datasets import content_digest, signature
from trainables.data.decoding import ImageHeader, decode_square, decode_squares, image_header, is_sixteen_bit_grey, rgb_image
from trainables.data.source import DatasetSource
from trainables.data.streaming import center_crop
from trainables.errors import DataError

sides = st.integers(1, 12)


@pytest.fixture(scope="module")
def file() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp())
    yield folder / "image.png"
    shutil.rmtree(folder)


def values(draw: st.DrawFn, channels: int, dtype: Any = np.uint8) -> Array:
    height, width = draw(sides), draw(sides)
    return draw(arrays(dtype, (height, width, channels) if channels > 1 else (height, width)))


@st.composite
def images(draw: st.DrawFn) -> tuple[bytes, Array]:
    """A file of a random kind with random pixels, and the RGB that arithmetic makes of them."""
    kind = draw(st.sampled_from(["png", "png16", "alpha", "alpha16", "palette", "bits", "ppm", "ppm16", "bmp", "webp", "tiff"]))
    channels, interlaced = draw(st.sampled_from([1, 3])), draw(st.booleans())
    if kind == "bits":
        bits = draw(st.sampled_from([1, 2, 4]))
        grey = values(draw, 1) >> (8 - bits)
        return png(grey, bits, 0, interlaced=interlaced), rgb(grey * (255 // ((1 << bits) - 1)))
    if kind == "palette":
        bits, index = draw(st.sampled_from([1, 2, 4, 8])), values(draw, 1)
        index >>= 8 - bits
        extra = chunk(b"tRNS", bytes([0, 128, 255])) if draw(st.booleans()) and bits > 1 else b""
        colours = palette(1 << bits)
        return png(index, bits, 3, chunk(b"PLTE", colours.tobytes()) + extra, interlaced), colours[index]
    array = values(draw, channels, np.uint16 if kind.endswith("16") else np.uint8)
    high = array >> 8 if kind.endswith("16") else array
    pixels = rgb(high) if channels == 1 else high.astype(np.uint8)
    if kind.startswith("png"):
        return png(array, 16 if kind == "png16" else 8, 0 if channels == 1 else 2, interlaced=interlaced), pixels
    if kind.startswith("alpha"):
        both = np.dstack([array, array if channels == 1 else array[:, :, 0]])
        return png(both, 16 if kind == "alpha16" else 8, 4 if channels == 1 else 6, interlaced=interlaced), pixels
    if kind.startswith("ppm"):
        maximum = 65535 if kind == "ppm16" else 255
        if channels == 3 and maximum > 255:
            pixels = np.rint(array / 65535 * 255).astype(np.uint8)
        return ppm("P5" if channels == 1 else "P6", array, maximum), pixels
    return saved(Image.fromarray(array), kind.upper(), **({"lossless": True} if kind == "webp" else {})), pixels


@given(images())
def test_decoded_pixels_match_the_specification(file: Path, image: tuple[bytes, Array]) -> None:
    data, pixels = image
    file.write_bytes(data)
    assert np.array_equal(np.asarray(rgb_image(file)), pixels)
    header = image_header(file)
    assert (header.height, header.width) == pixels.shape[:2]


WHOLE = [
    *(
        saved(Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)), kind)
        for kind in ("PNG", "JPEG", "BMP", "WEBP", "PPM")
    ),
    *(saved(flat((1, 2, 3)), kind) for kind in ("GIF", "TIFF", "JPEG2000", "ICO", "TGA", "PCX")),
    png(np.arange(64, dtype=np.uint16).reshape(8, 8), 16, 0),
    png(
        np.arange(64, dtype=np.uint8).reshape(8, 8) % 16,
        4,
        3,
        chunk(b"PLTE", palette(16).tobytes()) + chunk(b"tRNS", b"\0\1\2"),
    ),
    saved(flat((1, 2, 3)), "PNG", save_all=True, append_images=[flat((4, 5, 6))], exif=turned(), icc_profile=b"some"),
    saved(flat((1, 2, 3)), "JPEG", exif=turned(), progressive=True, icc_profile=b"some"),
    saved(flat((1, 2, 3, 4), "CMYK"), "JPEG"),
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A file with bytes changed, cut off, put in or left out."""
    data = bytearray(draw(st.sampled_from(WHOLE)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(data) - 1))
        match draw(st.sampled_from(["change", "flip", "cut", "insert", "remove"])):
            case "change":
                data[place] = draw(st.integers(0, 255))
            case "flip":
                data[place] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del data[max(place, 1) :]
            case "insert":
                data[place:place] = draw(st.binary(min_size=1, max_size=8))
            case "remove" if len(data) > 8:
                del data[place : place + draw(st.integers(1, 4))]
    return bytes(data)


def message_of(read: Callable[[Path], Any], path: Path) -> str | None:
    """Of the refusal, if there is one; whatever else is raised fails the test."""
    try:
        read(path)
    except DataError as error:
        return str(error)
    return None


@given(damaged())
@pytest.mark.filterwarnings("ignore")
def test_damaged_file_is_decoded_or_named(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    for read in (rgb_image, image_header, lambda path: decode_square(path, 4)):
        message = message_of(read, file)
        assert message is None or message.startswith(f"cannot decode {str(file)!r}: ")
        assert message is None or message.isprintable()


@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"P6 ", b"P5\n", b"P2 ", b"\x89PNG\r\n\x1a\n", b"BM", b"\xff\xd8\xff", b"RIFF"]),
)
@pytest.mark.filterwarnings("ignore")
def test_file_that_is_not_an_image_is_named(file: Path, data: bytes, begin: bytes) -> None:
    file.write_bytes(begin + data)
    is_sixteen_bit_grey(begin + data)
    assert (message_of(rgb_image, file) or "decoded").isprintable()


def test_at_most_five_damaged_files_are_named(tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.png" for index in range(9)]
    for index, path in enumerate(paths):
        path.write_bytes(WHOLE[0] if index == 4 else b"")
    with pytest.raises(
        DataError, match=r"0\.png.*; .*1\.png.*; .*2\.png.*; .*3\.png.*; .*5\.png.*; and 3 more; replace or remove it$"
    ) as caught:
        decode_squares(paths, 8)
    assert "6.png" not in str(caught.value)
    assert caught.value.hint == "replace or remove it"


HALF_A_JPEG = saved(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)), "JPEG")[:2000]


def test_truncated_file_is_rejected_under_any_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(HALF_A_JPEG)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(DataError, match="cannot decode"):
        rgb_image(path)


def test_pixel_limit_holds_whatever_a_custom_module_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(png(np.zeros((1, 1), np.uint8), 1, 0, size=(10000, 20000)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(DataError, match="must have 1 to 178,956,970 pixels, got 200,000,000; scale it down"):
        rgb_image(path)


def test_header_names_what_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(saved(flat((1, 2, 3)), "JPEG", exif=turned()))
    plain = ImageHeader(format="JPEG", mode="RGB", width=8, height=8, frames=1, orientation=6, transparent=False)
    assert image_header(path) == plain
    path.write_bytes(saved(flat((1, 2, 3)), "GIF", save_all=True, append_images=[flat((4, 5, 6))]))
    assert image_header(path).frames == 2
    path.write_bytes(saved(flat((1, 2, 3, 4), "RGBA"), "PNG"))
    assert image_header(path).transparent
    path.write_bytes(png(np.zeros((3, 2), np.uint16), 16, 0, chunk(b"tRNS", b"\0\0")))
    assert image_header(path) == ImageHeader(
        format="PNG", mode="I;16", width=2, height=3, frames=1, orientation=1, transparent=True
    )


@pytest.mark.parametrize("size", [(3, 400), (400, 3), (1, 150), (300, 31_000), (64, 6500)])
def test_long_image_has_the_same_crop_without_full_scaling(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    whole = np.asarray(center_crop(image, 32)).astype(int)
    monkeypatch.setattr(streaming, "MAX_ASPECT_RATIO", 10)
    assert (
        np.abs(np.asarray(center_crop(image, 32)) - whole).max() <= 1
    )  # PIL rounds after each of two passes, in an order of its own


@pytest.mark.parametrize("size", [(1, 100_000), (3_000_000, 1), (2, 5000)])
def test_very_long_image_is_cropped_without_full_scaling(size: tuple[int, int]) -> None:
    """The middle of a ramp along the longer side, whose scaled image would have gigabytes."""
    ramp = np.linspace(0, 255, max(size)).round().astype(np.uint8)
    image = Image.fromarray(rgb(ramp[:, None] if size[1] > size[0] else ramp[None]))
    image = image.resize(size) if 2 in size else image
    cut = np.asarray(center_crop(image, 224))
    assert cut.shape == (224, 224, 3)
    assert np.abs(cut.astype(int) - 127.5).max() <= 2


# Digests: those of ordinary data sets are as ever, those of files that are read in another way are not


@pytest.mark.parametrize("name", ["image_folder", "imagenet", "tiny_imagenet"])
def test_only_digests_of_16_bit_grey_differ_from_older_versions(tmp_path: Path, name: str) -> None:
    """The expected digest is the one that every version made: a hash of lines of name, size and content."""
    source = data_set(name, tmp_path)

    def plain_digest() -> str:
        names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
        lines = b""
        for one in names:
            content = (tmp_path / one).read_bytes()
            end = "" if name == "imagenet" else f"\0{hashlib.sha256(content).hexdigest()}"
            lines += f"{one}\0{len(content)}{end}\n".encode()
        return hashlib.sha256(lines).hexdigest()[:32]

    assert content_digest(source) == plain_digest()
    grey16 = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    path = next(iter(sorted((tmp_path / "train").rglob("*.png"))))
    for data, same in (
        (png(grey16, 16, 0), False),
        (png(grey16 >> 8, 8, 0), True),
        (png(np.dstack([grey16] * 3), 16, 2), True),
        (png(np.dstack([grey16] * 2), 16, 4), True),
    ):
        path.write_bytes(data)
        assert (content_digest(source) == plain_digest()) == same
    for data, same in (
        (ppm("P5", grey16, 65535), False),
        (ppm("P2", grey16, 65535), False),
        (ppm("P5", grey16 >> 8, 255), True),
    ):
        path.unlink()
        path = path.with_suffix(".ppm")
        path.write_bytes(data)
        assert (content_digest(source) == plain_digest()) == same


def test_digest_mark_is_set_where_decoding_scales(tmp_path: Path) -> None:
    for entry in PIXELS:
        (tmp_path / "train" / "bee").mkdir(parents=True, exist_ok=True)
        entry.build(tmp_path)
        (path,) = (tmp_path / "train" / "bee").iterdir()
        scaled = (image_header(path).format, image_header(path).mode) in {("PNG", "I;16"), ("PPM", "I")}
        assert is_sixteen_bit_grey(path.read_bytes()) == scaled, entry.name
        path.unlink()


def test_cache_of_an_older_version_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = data_set("image_folder", tmp_path)
    folder = DatasetSource(name="module:my.load", root=str(tmp_path), modules_path=str(tmp_path))
    (tmp_path / "my.py").write_text("")
    before = signature(source), signature(folder)
    monkeypatch.setattr(datasets, "READING", 1)
    assert signature(source) != before[0]
    assert signature(folder) != before[1]
