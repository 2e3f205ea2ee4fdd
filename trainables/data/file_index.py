"""The index of a data set of image files: the split and class of each file. Nothing is decoded here.

A class is named by its folder (a wnid such as n01443537 in ImageNet); its label is the position of its name among the sorted
names of the classes that have images in train/. Names are paths relative to the data set's folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainables.data.image_files import ImageFolders, SkippedFiles, printable
from trainables.errors import DataError

TINY_FOLDER = "tiny-imagenet-200"
ANNOTATIONS = "val/val_annotations.txt"


@dataclass(frozen=True, kw_only=True, slots=True)
class FileIndex:
    """Image files by split with their labels; `others` are further files that decide the content."""

    root: Path
    classes: tuple[str, ...]
    train: list[str]
    train_labels: list[int]
    test: list[str]
    test_labels: list[int]
    others: tuple[str, ...] = ()
    skipped: tuple[SkippedFiles, ...] = ()

    def files(self) -> list[tuple[str, Path]]:
        """Name and path of every file, sorted by name."""
        return [(name, self.root / name) for name in sorted([*self.train, *self.test, *self.others])]


def image_folder(root: Path) -> FileIndex:
    """Images in train/CLASS/* and test/CLASS/*.

    Raises:
        DataError: the layout is another one, or a class is only in test/.
    """
    folders, layout = ImageFolders(root), "{split}/CLASS/image.png"
    # Sorted by whole names, since the order of the images decides which of them a seed selects.
    train, test = (sorted(_class_images(folders, split, layout.format(split=split))) for split in ("train", "test"))
    for split, names in (("train", train), ("test", test)):
        _require_images(folders, split, names, f"the layout is {layout.format(split=split)}")
    return _labelled(folders, train, test, [name.split("/")[1] for name in test])


def tiny_imagenet(root: Path) -> FileIndex:
    """Tiny ImageNet in the layout of its archive, in `root` or in its folder tiny-imagenet-200.

    The labelled validation images are the test split, as is usual, since the published test images have no labels.

    Raises:
        DataError: the layout is another one, or a validation image has no class.
    """
    root = root / TINY_FOLDER if (root / TINY_FOLDER).is_dir() else root
    folders, layout = ImageFolders(root), "train/WNID/images/*.JPEG"
    train = _class_images(folders, "train", layout, below="/images")
    _require_images(folders, "train", train, f"the layout is {layout}")
    if not (root / "val" / "images").is_dir() or not (root / ANNOTATIONS).is_file():
        raise DataError(
            f"dataset.root: {str(root / 'val')!r} must hold images/*.JPEG and val_annotations.txt, as the archive of Tiny "
            "ImageNet unpacks",
            "where val/ was sorted into class folders, unpack it again",
        )
    test = folders.images("val/images")
    _require_images(folders, "val/images", test, "unpack the archive again")
    wnids = _annotated(root)
    for name in test:
        if name not in wnids:
            raise DataError(
                f"{str(root / ANNOTATIONS)!r} has no line for {printable(Path(name).name)}", "unpack the archive again"
            )
    return _labelled(folders, train, test, [wnids[name] for name in test], others=(ANNOTATIONS,))


def imagenet(root: Path) -> FileIndex:
    """ImageNet in torchvision's layout, train/WNID/*.JPEG and val/WNID/*.JPEG; the validation images are the test split.

    Raises:
        DataError: the layout is another one, or a class is only in val/.
    """
    folders = ImageFolders(root)
    train, test = (_class_images(folders, split, f"{split}/WNID/*.JPEG") for split in ("train", "val"))
    _require_images(folders, "train", train, "the layout is train/WNID/*.JPEG")
    hint = "so sort the validation images into folders of their classes, as torchvision.datasets.ImageNet does"
    _require_images(folders, "val", test, f"the layout is val/WNID/*.JPEG, {hint}")
    return _labelled(folders, train, test, [name.split("/")[1] for name in test])


def _class_images(folders: ImageFolders, split: str, layout: str, below: str = "") -> list[str]:
    if not (folders.root / split).is_dir():
        raise DataError(f"dataset.root: {str(folders.root)!r} has no folder {split!r}", f"the layout is {layout}")
    return folders.class_images(split, below)


def _require_images(folders: ImageFolders, folder: str, names: list[str], hint: str) -> None:
    if not names:
        others = "".join(f" ({files.finding().message})" for files in folders.skipped() if files.reason != "hidden")
        raise DataError(f"dataset.root: no images in {str(folders.root / folder)!r}", f"{hint}{others}")


def _labelled(
    folders: ImageFolders, train: list[str], test: list[str], test_classes: list[str], others: tuple[str, ...] = ()
) -> FileIndex:
    classes = sorted({name.split("/")[1] for name in train})
    label = {name: index for index, name in enumerate(classes)}
    for name, class_ in zip(test, test_classes, strict=True):
        if class_ not in label:
            raise DataError(
                f"dataset.root: {str(folders.root / name)!r} is of class {class_!r}, which has no images in "
                f"{str(folders.root / 'train')!r}",
                "give the class training images, or remove its test images",
            )
    if len(classes) < 2:
        raise DataError(
            f"dataset.root: {str(folders.root / 'train')!r} must hold images of two classes or more, got {classes[0]!r} alone",
            "add a folder of images for each other class",
        )
    return FileIndex(
        root=folders.root,
        classes=tuple(classes),
        train=train,
        train_labels=[label[name.split("/")[1]] for name in train],
        test=test,
        test_labels=[label[class_] for class_ in test_classes],
        others=others,
        skipped=folders.skipped(),
    )


def _annotated(root: Path) -> dict[str, str]:
    """Name of a validation image -> wnid, from lines of file, wnid and box, separated by tabs."""
    wnids = {}
    for number, line in enumerate((root / ANNOTATIONS).read_text("utf-8", "surrogateescape").splitlines(), start=1):
        file, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        if not wnid:
            raise DataError(
                f"{str(root / ANNOTATIONS)!r}, line {number}: must be file, wnid and box, separated by tabs, got {line!r}",
                "unpack the archive again",
            )
        wnids[f"val/images/{file}"] = wnid
    return wnids
