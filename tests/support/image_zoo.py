"""Images and folders as people have them, each with what must become of it: its exact pixels, a refusal, or a place among what
is left out.

An entry is added to a small image folder. Pixels are known from arithmetic on the numbers that were written, and files that PIL
does not write are put together from their specifications.
"""

from __future__ import annotations

import os
import shutil
import socket
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.support.written_images import (
    ALPHA,
    COLOUR,
    COLOUR16,
    GREY,
    GREY16,
    SIDE,
    Array,
    chunk,
    flat,
    of,
    paletted,
    png,
    ppm,
    rgb,
    saved,
    turned,
    with_alpha,
)

PLACE = "train/bee/z"


@dataclass(frozen=True)
class Read:
    """The image is read as these pixels, uint8 (8, 8, 3), within `tolerance` where its format loses some."""

    pixels: Array
    tolerance: int = 0
    name: str = PLACE + ".png"


@dataclass(frozen=True)
class Refused:
    """The data set is refused; the message has the file's name and the rule."""

    rule: str
    name: str = "z.png"


@dataclass(frozen=True)
class Left:
    """The data set is read without it, and it is counted under this reason."""

    reason: str


@dataclass(frozen=True)
class Entry:
    name: str
    build: Callable[[Path], None]  # gets the data set's folder
    outcome: Read | Refused | Left


def base(root: Path) -> Path:
    """An image folder of two classes with an image each for training and for test."""
    for split in ("train", "test"):
        for label, value in (("ant", 50), ("bee", 200)):
            (root / split / label).mkdir(parents=True)
            Image.new("RGB", (SIDE, SIDE), (value, 0, 0)).save(root / split / label / "a.png")
    return root


# Files


def content(data: bytes, suffix: str = ".png", name: str = PLACE) -> Callable[[Path], None]:
    def build(root: Path) -> None:
        (root / (name + suffix)).write_bytes(data)

    return build


def tiff(image: Image.Image) -> bytes:
    return saved(image, "TIFF")


PLAIN = Image.fromarray(COLOUR)
OTHER = Image.fromarray(255 - COLOUR)
PNG = saved(PLAIN, "PNG")
JPEG = saved(Image.fromarray(np.kron(COLOUR, np.ones((8, 8, 1), np.uint8))), "JPEG", quality=95)
PALETTES = {bits: paletted(bits) for bits in (1, 2, 4, 8)}
SEE_THROUGH = paletted(4, chunk(b"tRNS", bytes(range(0, 256, 16))))
SCALED = (np.rint(GREY16.astype(float) / 65535 * 1023)).astype(np.uint16)  # as 10 bits
BLUE, RED = (20, 60, 200), (200, 40, 20)

JPEGS: dict[str, dict[str, Any]] = {
    "colour": {},
    "progressive": {"progressive": True},
    "4:4:4": {"subsampling": 0},
    "4:2:0": {"subsampling": 2},
    "that viewers turn": {"exif": turned()},
}

PIXELS = [
    *(
        Entry(f"png grey {bits} bit", content(png(GREY >> (8 - bits), bits, 0)), Read(rgb((GREY >> (8 - bits)) * factor)))
        for bits, factor in ((1, 255), (2, 85), (4, 17), (8, 1))
    ),
    Entry("png grey 16 bit", content(png(GREY16, 16, 0)), Read(rgb(GREY16 >> 8))),
    Entry("png grey 16 bit by PIL", content(saved(Image.fromarray(GREY16), "PNG")), Read(rgb(GREY16 >> 8))),
    Entry(
        "png grey 16 bit, one value transparent", content(png(GREY16, 16, 0, chunk(b"tRNS", b"\0\0"))), Read(rgb(GREY16 >> 8))
    ),
    Entry("png grey 16 bit interlaced", content(png(GREY16, 16, 0, interlaced=True)), Read(rgb(GREY16 >> 8))),
    Entry("png colour 8 bit", content(png(COLOUR, 8, 2)), Read(COLOUR)),
    Entry("png colour 16 bit", content(png(COLOUR16, 16, 2)), Read((COLOUR16 >> 8).astype(np.uint8))),
    Entry("png colour interlaced", content(png(COLOUR, 8, 2, interlaced=True)), Read(COLOUR)),
    *(Entry(f"png palette {bits} bit", content(data), Read(pixels)) for bits, (data, pixels) in PALETTES.items()),
    Entry("png palette with transparency", content(SEE_THROUGH[0]), Read(SEE_THROUGH[1])),
    Entry("png grey alpha 8 bit", content(png(with_alpha(GREY, ALPHA), 8, 4)), Read(rgb(GREY))),
    Entry("png grey alpha 16 bit", content(png(with_alpha(GREY16, GREY16), 16, 4)), Read(rgb(GREY16 >> 8))),
    Entry("png colour alpha 8 bit", content(png(with_alpha(COLOUR, ALPHA), 8, 6)), Read(COLOUR)),
    Entry("png colour alpha 16 bit", content(png(with_alpha(COLOUR16, GREY16), 16, 6)), Read((COLOUR16 >> 8).astype(np.uint8))),
    Entry("png wholly transparent", content(png(with_alpha(COLOUR, 0 * ALPHA), 8, 6)), Read(COLOUR)),
    Entry("png grey, one value transparent", content(png(GREY, 8, 0, chunk(b"tRNS", b"\0\x07"))), Read(rgb(GREY))),
    Entry("png colour, one transparent", content(png(COLOUR, 8, 2, chunk(b"tRNS", b"\0\1\0\2\0\3"))), Read(COLOUR)),
    Entry("png with gamma and colour profile", content(saved(PLAIN, "PNG", icc_profile=b"no profile")), Read(COLOUR)),
    Entry("png that viewers turn", content(saved(PLAIN, "PNG", exif=turned())), Read(COLOUR)),
    Entry("png of two frames", content(saved(PLAIN, "PNG", save_all=True, append_images=[OTHER])), Read(COLOUR)),
    Entry("jpeg grey", content(saved(Image.new("L", (8, 8), 77), "JPEG"), ".jpg"), Read(of((77, 77, 77)), name=PLACE + ".jpg")),
    *(
        Entry(f"jpeg {what}", content(saved(flat(BLUE), "JPEG", **options), ".jpg"), Read(of(BLUE), 3, PLACE + ".jpg"))
        for what, options in JPEGS.items()
    ),
    Entry("jpeg cmyk", content(saved(flat((55, 215, 235, 0), "CMYK"), "JPEG"), ".jpg"), Read(of(RED), 3, PLACE + ".jpg")),
    Entry(
        "jpeg cmyk with black",
        content(saved(flat((0, 0, 0, 155), "CMYK"), "JPEG"), ".jpg"),
        Read(of((100, 100, 100)), 3, PLACE + ".jpg"),
    ),
    *(
        Entry(f"suffix {suffix}", content(PNG, suffix), Read(COLOUR, name=PLACE + suffix))
        for suffix in (".PNG", ".JPEG", ".JpG", ".Bmp", ".jpeg")
    ),
    *(
        Entry(f"bmp {image.mode}", content(saved(image, "BMP"), ".bmp"), Read(pixels, name=PLACE + ".bmp"))
        for image, pixels in (
            (PLAIN, COLOUR),
            (Image.fromarray(GREY), rgb(GREY)),
            (Image.fromarray(GREY > 99), rgb((GREY > 99) * 255)),
        )
    ),
    Entry("bmp of 32 bit", content(saved(PLAIN.convert("RGBA"), "BMP"), ".bmp"), Read(COLOUR, name=PLACE + ".bmp")),
    Entry("webp lossless", content(saved(PLAIN, "WEBP", lossless=True), ".webp"), Read(COLOUR, name=PLACE + ".webp")),
    Entry(
        "webp with alpha",
        content(saved(Image.fromarray(with_alpha(COLOUR, ALPHA)), "WEBP", lossless=True, exact=True), ".webp"),
        Read(COLOUR, name=PLACE + ".webp"),
    ),
    Entry(
        "webp of two frames",
        content(saved(PLAIN, "WEBP", lossless=True, save_all=True, append_images=[OTHER]), ".webp"),
        Read(COLOUR, name=PLACE + ".webp"),
    ),
    *(
        Entry(f"ppm {kind} to {maximum}", content(ppm(kind, values, maximum), ".ppm"), Read(pixels, name=PLACE + ".ppm"))
        for kind, values, maximum, pixels in (
            ("P5", GREY, 255, rgb(GREY)),
            ("P2", GREY, 255, rgb(GREY)),
            ("P6", COLOUR, 255, COLOUR),
            ("P3", COLOUR, 255, COLOUR),
            ("P5", GREY >> 4, 15, rgb((GREY >> 4) * 17)),
            ("P5", GREY16, 65535, rgb(GREY16 >> 8)),
            ("P2", GREY16, 65535, rgb(GREY16 >> 8)),
            ("P6", COLOUR16, 65535, np.rint(COLOUR16 / 65535 * 255).astype(np.uint8)),
            ("P5", SCALED, 1023, rgb(np.rint(SCALED / 1023 * 65535).astype(np.uint16) >> 8)),
        )
    ),
    Entry(
        "ppm of bits",
        content(saved(Image.fromarray(GREY > 99), "PPM"), ".ppm"),
        Read(rgb((GREY > 99) * 255), name=PLACE + ".ppm"),
    ),
    Entry("a jpeg called png", content(saved(flat(BLUE), "JPEG")), Read(of(BLUE), 3)),
    Entry("a gif called png", content(saved(flat(RED), "GIF")), Read(of(RED))),
    Entry(
        "a gif of two frames called png",
        content(saved(flat(RED), "GIF", save_all=True, append_images=[flat(BLUE)])),
        Read(of(RED)),
    ),
    Entry("a tiff called png", content(tiff(PLAIN)), Read(COLOUR)),
    Entry("a tiff of Lab called png", content(tiff(flat((255, 128, 128), "LAB"))), Read(of((255, 255, 255)), 2)),
    Entry("a jpeg 2000 called png", content(saved(PLAIN, "JPEG2000", irreversible=False)), Read(COLOUR)),
]

# Pixels without a known range, and files that are none

CUT = {
    "png": PNG,
    "jpeg": JPEG,
    "bmp": saved(PLAIN, "BMP"),
    "webp": saved(PLAIN, "WEBP", lossless=True),
    "ppm": saved(PLAIN, "PPM"),
}


def changed(data: bytes, place: int, byte: int = 0xFF) -> bytes:
    return data[:place] + bytes([data[place] ^ byte]) + data[place + 1 :]


UNKNOWN = "must have values of a known range, got"
REFUSED = [
    *(
        Entry(f"{kind} of mode {image.mode}", content(saved(image, kind)), Refused(f"{UNKNOWN} {kind} of mode '{mode}'"))
        for image, kind, mode in (
            (Image.new("I", (8, 8)), "TIFF", "I"),
            (Image.new("F", (8, 8)), "TIFF", "F"),
            (Image.new("F", (8, 8)), "PPM", "F"),
            (Image.fromarray(GREY16), "TIFF", "I;16"),
            (Image.new("I;16B", (8, 8)), "TIFF", "I;16B"),
            (Image.fromarray(GREY16), "JPEG2000", "I;16"),
        )
    ),
    Entry("postscript", content(saved(PLAIN, "EPS")), Refused("must be of pixels, got EPS; save it as PNG")),
    Entry("empty", content(b""), Refused("it must begin like an image, got b")),
    Entry("text", content(b"404: Not Found\n"), Refused("it must begin like an image, got b")),
    Entry(
        "a pointer of Git LFS",
        content(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"),
        Refused("it must begin like an image, got b"),
    ),
    Entry("zeros", content(bytes(5000)), Refused("it must begin like an image, got b")),
    *(Entry(f"half a {kind}", content(data[: len(data) // 2]), Refused("cannot decode")) for kind, data in CUT.items()),
    Entry("png, wrong byte in the header", content(changed(PNG, 18)), Refused("cannot decode")),
    Entry("png, wrong byte in a chunk's name", content(changed(PNG, PNG.index(b"IDAT") + 1)), Refused("cannot decode")),
    Entry("png, wrong byte in a chunk's length", content(changed(PNG, PNG.index(b"IDAT") - 1)), Refused("cannot decode")),
    Entry("png, wrong byte in the pixels", content(changed(PNG, PNG.index(b"IDAT") + 5)), Refused("cannot decode")),
    Entry("png without pixels", content(png(GREY, 8, 0).replace(b"IDAT", b"IDAB")), Refused("cannot decode")),
    Entry("png of no width", content(png(GREY, 8, 0, size=(8, 0))), Refused("cannot decode")),
    Entry(
        "png with a text that unpacks to gigabytes",
        content(png(GREY, 8, 0, chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(1 << 24))))),
        Refused("cannot decode"),
    ),
    Entry(
        "png of 200 million pixels",
        content(png(GREY, 1, 0, size=(10000, 20000))),
        Refused("must have 1 to 178,956,970 pixels, got 200,000,000; scale it down"),
    ),
    Entry(
        "png of 4 billion pixels",
        content(png(GREY, 1, 0, size=(60000, 70000))),
        Refused("must have 1 to 178,956,970 pixels, got 4,200,000,000; scale it down"),
    ),
    *(
        Entry(f"ppm with header {header!r}", content(header.encode() + bytes(192)), Refused("cannot decode"))
        for header in (
            "P6 8 8 0\n",
            "P6 8 -8 255\n",
            "P6 a b 255\n",
            "P6 99999999999 8 255\n",
            "P6 8 8 70000\n",
            "P6 8",
            "P6 0 8 255\n",
        )
    ),
    Entry("bmp with a wrong size", content(changed(saved(PLAIN, "BMP"), 21)), Refused("cannot decode")),
    Entry("a named pipe", lambda root: os.mkfifo(root / (PLACE + ".png")), Refused("must be a file, got a named pipe")),
    Entry("a socket", lambda root: _socket(root / (PLACE + ".png")), Refused("must be a file, got a named pipe, a socket")),
    Entry(
        "a link to a device", lambda root: _link(root, "/dev/zero"), Refused("must be a file, got a named pipe, a socket or a")
    ),
    Entry("a folder", lambda root: (root / (PLACE + ".png")).mkdir(), Refused("must be a file, got a folder")),
    Entry("a link to nothing", lambda root: _link(root, "nowhere"), Refused("got a link to 'nowhere' that cannot be followed")),
    Entry("a link to itself", lambda root: _link(root, "z.png"), Refused("got a link to 'z.png' that cannot be followed")),
    Entry("a file that cannot be read", lambda root: _link(root, "/proc/self/mem"), Refused("")),
    Entry(
        "a class that holds itself",
        lambda root: (root / "train/z").symlink_to("."),
        Refused("must not be a link to a folder that holds it", "train/z"),
    ),
    Entry(
        "a class that is linked twice",
        lambda root: (root / "train/z").symlink_to("bee"),
        Refused("got a link to the same images", "train/"),
    ),
    Entry(
        "a class that is a link to nothing",
        lambda root: (root / "train/z").symlink_to("nowhere"),
        Refused("must be a folder, got a link to 'nowhere' that cannot be followed", "train/z"),
    ),
    Entry(
        "a class of gif images", lambda root: _new(root / "train/z/a.gif"), Refused("must hold images, got 1 others", "train/z")
    ),
    Entry(
        "a class with its images deeper",
        lambda root: _new(root / "train/z/more/a.png"),
        Refused("must hold images, got 1 others such as 'train/z/more/a.png'", "train/z"),
    ),
    Entry(
        "a class that is only tested",
        lambda root: _new(root / "test/z/a.png"),
        Refused("which has no images in", "test/z/a.png"),
    ),
    Entry(
        "one class",
        lambda root: _remove(root / "train/ant", root / "test/ant"),
        Refused("must hold images of two classes or more, got 'bee' alone", "train"),
    ),
    Entry(
        "no test images",
        lambda root: _remove(root / "test/ant", root / "test/bee"),
        Refused("no images in", "test"),
    ),
]


def _remove(*folders: Path) -> None:
    for folder in folders:
        shutil.rmtree(folder)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        folder = os.open(path.parent, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{folder}/{path.name}")  # the whole path may be too long for a socket
        os.close(folder)


def _link(root: Path, target: str | Path) -> None:
    (root / (PLACE + ".png")).symlink_to(target)


def _new(path: Path, data: bytes = PNG) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _new_below(name: str, root: Path) -> None:
    _new(root / name)


def _linked(root: Path) -> None:
    _new(root / "elsewhere.bin")
    _link(root, "../../elsewhere.bin")


def _linked_class(root: Path) -> None:
    _new(root / "elsewhere/z.png")
    (root / "train/link").symlink_to("../elsewhere")


# Names and layouts

NAMES = (
    *(
        "with spaces",
        "-dash",
        "line\nbreak",
        "quote'\"",
        "100%",
        "#hash",
        "b\\ackslash",
        "*",
        "ünïcödé",
        "no utf8 \udcff\udce9",
    ),
    *("x" * 250, "two.dots", "\u202eright to left", "CON"),
)
LEFT = {
    "hidden": (
        *("train/bee/.z.png", "train/bee/._a.png", "train/bee/Thumbs.db", "train/bee/.DS_Store", "train/@eaDir/a.png"),
        *("train/.ipynb_checkpoints/a.png", "train/__MACOSX/bee/._a.png"),
    ),
    "nested": ("train/bee/more/a.png", "train/bee/a/b/c.png"),
    "without_class": ("train/z.png",),
    "other_format": ("train/bee/z.gif", "train/bee/z.TIF", "train/bee/z.heic"),
    "other_file": ("train/bee/z.txt", "train/bee/z"),
}
FOUND = [
    *(
        Entry(f"name {name[:20]!r}", content(PNG, name=f"train/bee/{name}"), Read(COLOUR, name=f"train/bee/{name}.png"))
        for name in NAMES
    ),
    Entry("a link to a file", _linked, Read(COLOUR)),
    Entry("a class that is a link", _linked_class, Read(COLOUR, name="train/link/z.png")),
    Entry(
        "a class with a name that is no utf8",
        lambda root: _new(root / "train/\udcff\n'/z.png"),
        Read(COLOUR, name="train/\udcff\n'/z.png"),
    ),
    *(
        Entry(f"{name} is left out", partial(_new_below, name), Left(reason))
        for reason, names in LEFT.items()
        for name in names
    ),
    Entry("an empty class is left out", lambda root: (root / "train/z").mkdir(), Left("empty_class")),
    Entry("a folder that holds itself is left out", lambda root: (root / "train/bee/z").symlink_to("."), Left("nested")),
]

ZOO = [*PIXELS, *REFUSED, *FOUND]
