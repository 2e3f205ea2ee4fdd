"""Folders of small data sets in the layouts of the published ones, with images that show their class and number."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from trainables.config.trial import DatasetConfig
from trainables.data.source import DatasetSource
from trainables.data.splits import Data, Split, load_data

WNIDS = ("n01443537", "n01629819", "n02056570")  # as sorted; a class is its channel
ClassesAndNumbers = list[tuple[int, int]]  # class and number of every image, as its pixels tell them


def write_image(path: Path, label: int, number: int, size: tuple[int, int] = (64, 64)) -> None:
    """The channel of the class is full, the next one tells the number (below 14)."""
    colour = [0, 0, 0]
    colour[label], colour[(label + 1) % 3] = 250, 16 * number
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, tuple(colour)).save(path, format="JPEG", quality=95)


def classes_and_numbers(images: Iterable[Tensor]) -> ClassesAndNumbers:
    """What a pixel of the right half of uint8 images tells."""
    pairs = []
    for image in images:
        pixel = image[:, image.shape[1] // 2, image.shape[2] * 3 // 4].tolist()
        label = pixel.index(max(pixel))
        pairs.append((label, round(pixel[(label + 1) % 3] / 16)))
    return pairs


def tiny_imagenet(root: Path) -> Path:
    """Three classes of 6 images to train on, one of them grey, and 2 to validate; lists in another order than sorted."""
    lines: list[str] = []
    for label in (2, 0, 1):
        wnid = WNIDS[label]
        for number in range(6):
            write_image(root / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", label, number)
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t0\t62\t62\n")
        for number in range(2):
            name = f"val_{2 * len(lines)}.JPEG"  # numbers do not follow the classes
            write_image(root / "val" / "images" / name, label, number)
            lines.append(f"{name}\t{wnid}\t0\t32\t44\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    Image.new("L", (64, 64), 90).save(root / "train" / WNIDS[0] / "images" / f"{WNIDS[0]}_0.JPEG")
    write_image(root / "test" / "images" / "test_0.JPEG", 0, 0)
    (root / "wnids.txt").write_text("".join(f"{WNIDS[label]}\n" for label in (2, 0, 1)))
    (root / "words.txt").write_text("".join(f"{wnid}\tsome animal\n" for wnid in WNIDS))
    return root


def tiny_source(root: Path) -> DatasetSource:
    return DatasetSource(name="tiny_imagenet", root=str(root))


def imagenet(root: Path, train: int = 8, val: int = 4) -> Path:
    """Three classes of images of several sizes, wide and tall."""
    for label in (2, 0, 1):
        for number in range(train):
            name = f"{WNIDS[label]}_{number:02}.JPEG"
            write_image(root / "train" / WNIDS[label] / name, label, number, (60 + 10 * number, 90 - 5 * number))
        for number in range(val):
            name = f"ILSVRC2012_val_{3 * number + label:08}.JPEG"
            write_image(root / "val" / WNIDS[label] / name, label, number, (70, 50))
    return root


def imagenet_source(root: Path) -> DatasetSource:
    return DatasetSource(name="imagenet", root=str(root))


def streamed(root: Path, threads: int = 0, **options: Any) -> Data:
    config = DatasetConfig(name="imagenet", image_size=32, validation=0.0)
    return load_data(replace(config, **options), imagenet_source(root), "cpu", threads)


def striped(root: Path) -> Path:
    """As `imagenet`, each training image with a dark left half, so that crops and mirrors change it."""
    for path in (imagenet(root) / "train").rglob("*.JPEG"):
        image = np.asarray(Image.open(path)).copy()
        image[:, : image.shape[1] // 2] //= 4
        Image.fromarray(image).save(path, quality=95)
    return root


def all_images(split: Split) -> Tensor:
    return torch.cat([images for images, _ in split.batches([torch.arange(len(split))])])


def png_tree(root: Path) -> Path:
    """Two classes; names sort apart from the order of writing; one image is not square, one file is no image."""
    for split, label, name, size, value in [
        ("train", "zebra", "b.png", (8, 8), 200),
        ("train", "zebra", "a.png", (8, 8), 100),
        ("train", "ant", "only.PNG", (16, 16), 50),
        ("test", "ant", "one.png", (24, 16), 10),
    ]:
        folder = root / split / label
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (value, 0, 255 - value)).save(folder / name, format="PNG")
    (root / "train" / "ant" / "notes.txt").write_text("not an image")
    return root


def idx(array: NDArray[np.uint8]) -> bytes:
    """The IDX format: two zero bytes, type 8 (uint8), number of dimensions, sizes big-endian, bytes."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.tobytes()


def fashion_files(folder: Path, packed: bool) -> dict[str, NDArray[np.uint8]]:
    draw = np.random.default_rng(0)
    arrays = {
        "train-images-idx3-ubyte": draw.integers(0, 256, (7, 28, 28), dtype=np.uint8),
        "train-labels-idx1-ubyte": draw.integers(0, 10, 7, dtype=np.uint8),
        "t10k-images-idx3-ubyte": draw.integers(0, 256, (3, 28, 28), dtype=np.uint8),
        "t10k-labels-idx1-ubyte": draw.integers(0, 10, 3, dtype=np.uint8),
    }
    folder.mkdir(parents=True)
    for name, array in arrays.items():
        path = folder / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(idx(array)) if packed else idx(array))
    return arrays
