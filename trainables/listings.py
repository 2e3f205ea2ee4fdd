"""Published data sets of image files: which files belong to which split, and the class of each. Nothing is decoded here.

A class is named by its wnid (n01443537); its label is the wnid's place among the sorted wnids that have images in train/.
Names are paths below the data set's folder. Read by: datasets.py, streaming.py.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from trainables.failures import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm")
TINY_FOLDER = "tiny-imagenet-200"
ANNOTATIONS = "val/val_annotations.txt"


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """Image files by split with their labels; `others` are files besides the images that decide the content."""

    root: Path
    classes: tuple[str, ...]
    train: list[str]
    train_labels: list[int]
    test: list[str]
    test_labels: list[int]
    others: tuple[str, ...] = ()

    def files(self) -> list[tuple[str, Path]]:
        """Name and path of every file, sorted by name."""
        return [(name, self.root / name) for name in sorted([*self.train, *self.test, *self.others])]


def tiny_imagenet(root: Path) -> Listing:
    """Tiny ImageNet as its archive unpacks, in `root` or in its folder tiny-imagenet-200.

    The labelled validation images are the test split, as is usual, since the published test images have no labels.

    Raises:
        DataError: the layout is another one, or a validation image has no class.
    """
    root = root / TINY_FOLDER if (root / TINY_FOLDER).is_dir() else root
    train = [
        f"train/{wnid}/images/{name}"
        for wnid in _folders(root, "train", "train/WNID/images/*.JPEG")
        for name in _images(root / "train" / wnid / "images")
    ]
    classes = _classes(train, root / "train", "train/WNID/images/*.JPEG")
    if not (root / "val" / "images").is_dir() or not (root / ANNOTATIONS).is_file():
        raise DataError(
            f"dataset.root: {str(root / 'val')!r} must hold images/*.JPEG and val_annotations.txt, as the archive of Tiny "
            "ImageNet unpacks; where val/ was sorted into class folders, unpack it again"
        )
    test = [f"val/images/{name}" for name in _images(root / "val" / "images")]
    if not test:
        raise DataError(f"dataset.root: no images in {str(root / 'val' / 'images')!r}; unpack the archive again")
    wnids = _annotated(root)
    for name in test:
        if name not in wnids:
            raise DataError(f"{str(root / ANNOTATIONS)!r} has no line for {Path(name).name}; unpack the archive again")
    return _labelled(root, classes, train, test, [wnids[name] for name in test], others=(ANNOTATIONS,))


def imagenet(root: Path) -> Listing:
    """ImageNet in torchvision's layout, train/WNID/*.JPEG and val/WNID/*.JPEG; the validation images are the test split.

    Raises:
        DataError: the layout is another one, or a class is only in val/.
    """
    train, test = (
        [f"{split}/{wnid}/{name}" for wnid in _folders(root, split, layout) for name in _images(root / split / wnid)]
        for split, layout in (("train", "train/WNID/*.JPEG"), ("val", "val/WNID/*.JPEG"))
    )
    classes = _classes(train, root / "train", "train/WNID/*.JPEG")
    if not test:
        raise DataError(
            f"dataset.root: no images in {str(root / 'val')!r}; the layout is val/WNID/*.JPEG, so sort the validation images "
            "into folders of their classes, as torchvision.datasets.ImageNet does"
        )
    return _labelled(root, classes, train, test, [name.split("/")[1] for name in test])


def _labelled(
    root: Path, classes: list[str], train: list[str], test: list[str], test_wnids: list[str], others: tuple[str, ...] = ()
) -> Listing:
    label = {wnid: index for index, wnid in enumerate(classes)}
    for name, wnid in zip(test, test_wnids, strict=True):
        if wnid not in label:
            raise DataError(
                f"dataset.root: {str(root / name)!r} is of class {wnid!r}, which has no images in {str(root / 'train')!r}; "
                "unpack the archive again, or remove the class from val/ too"
            )
    return Listing(
        root=root,
        classes=tuple(classes),
        train=train,
        train_labels=[label[name.split("/")[1]] for name in train],
        test=test,
        test_labels=[label[wnid] for wnid in test_wnids],
        others=others,
    )


def _folders(root: Path, split: str, layout: str) -> list[str]:
    """Sorted names of the folders in a split."""
    if not (root / split).is_dir():
        raise DataError(f"dataset.root: {str(root)!r} has no folder {split!r}; the layout is {layout}")
    with os.scandir(root / split) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())


def _images(folder: Path) -> list[str]:
    """Sorted names of the image files in a folder; none where it is missing."""
    if not folder.is_dir():
        return []
    return sorted(name for name in os.listdir(folder) if name.lower().endswith(IMAGE_SUFFIXES))


def _classes(names: list[str], folder: Path, layout: str) -> list[str]:
    """Sorted wnids that have images."""
    if not names:
        raise DataError(f"dataset.root: no images in {str(folder)!r}; the layout is {layout}")
    return sorted({name.split("/")[1] for name in names})


def _annotated(root: Path) -> dict[str, str]:
    """Name of a validation image -> wnid, from lines of file, wnid and box, separated by tabs."""
    wnids = {}
    for number, line in enumerate((root / ANNOTATIONS).read_text().splitlines(), start=1):
        file, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        if not wnid:
            raise DataError(
                f"{str(root / ANNOTATIONS)!r}, line {number}: must be file, wnid and box, separated by tabs, got {line!r}; "
                "unpack the archive again"
            )
        wnids[f"val/images/{file}"] = wnid
    return wnids
