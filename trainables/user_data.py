"""A data set of the user's own: the files that decide its content, and its images, checked.

The function gets `dataset.root` (or None) and returns train_images, train_labels, test_images, test_labels and the number
of classes. Read by: datasets.py.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.failures import DataError
from trainables.user_code import function_of, source_file, source_of

if TYPE_CHECKING:
    from torch import Tensor


def own_files(reference: str, root: str | None, modules_path: str) -> list[tuple[str, Path]]:
    """Name and path of the function's source file and of every file below `root`, sorted by name.

    Raises:
        SettingError: there is no such module.
        DataError: there is no such folder.
    """
    found = [("module", source_file("dataset", reference, modules_path))]
    if root is None:
        return found
    root = os.path.expanduser(root)
    if not Path(root).is_dir():
        raise DataError(f"dataset.root: no folder {root!r} on this machine; give the folder that {reference} reads")
    for folder, folders, names in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if name != "__pycache__"]
        found += [(f"root/{os.path.relpath(Path(folder, name), root)}", Path(folder, name)) for name in names]
    for _, path in found:
        if not path.is_file():
            raise DataError(f"dataset.root: {str(path)!r} must be a file that can be read; it may be a link to nothing")
    return sorted(found)


def read_own(reference: str, root: str | None, modules_path: str) -> tuple[list[Any], int]:
    """Images uint8 (N, C, H, W) and labels int64 (N,) of both splits, and the number of classes, as the function gives them.

    Raises:
        DataError: it fails, or what it gives is something else; or its file was changed since it was imported.
    """
    import torch

    if source_file("dataset", reference, modules_path).read_bytes() != source_of(reference):
        # The cache would keep the images of the old file under the signature of the new one.
        raise DataError(f"dataset: the file of {reference} must stay as it is while a sweep runs; run the sweep again")
    try:
        train_images, train_labels, test_images, test_labels, num_classes = function_of(reference)(
            root and os.path.expanduser(root)
        )
    except Exception as error:
        rule = "return train_images, train_labels, test_images, test_labels, num_classes"
        raise DataError(f"dataset: {reference} must {rule}, got {type(error).__name__}: {error}; correct it") from error
    if not isinstance(num_classes, int) or num_classes < 2:
        raise DataError(f"dataset: {reference} must return num_classes >= 2, got {num_classes!r}; correct it")
    parts: list[Any] = []
    for split, images, labels in (("train", train_images, train_labels), ("test", test_images, test_labels)):
        try:
            parts += [torch.as_tensor(images), torch.as_tensor(labels)]
        except (TypeError, ValueError, RuntimeError) as error:
            raise DataError(f"dataset: {reference} must return arrays, got for {split}: {error}; correct it") from error
        _check(reference, split, parts[-2], parts[-1], num_classes)
    train, test = parts[0].shape[1:], parts[2].shape[1:]
    if train != test:
        rule = "return test images of the shape of its training images"
        raise DataError(f"dataset: {reference} must {rule}, got {tuple(test)} and {tuple(train)}; correct it")
    return [part if part.ndim == 4 else part.long() for part in parts], num_classes


def _check(reference: str, split: str, images: Tensor, labels: Tensor, num_classes: int) -> None:
    def refused(rule: str, got: object) -> DataError:
        return DataError(f"dataset: {reference} must return {split}_{rule}, got {got}; correct it")

    if images.ndim != 4 or not images.numel() or str(images.dtype) != "torch.uint8":
        raise refused("images as uint8 of shape (N, C, H, W)", f"{images.dtype} of shape {tuple(images.shape)}")
    if (
        labels.shape != images.shape[:1]
        or labels.is_floating_point()
        or labels.is_complex()
        or str(labels.dtype) == "torch.bool"
    ):
        raise refused(f"labels as integers of shape ({len(images)},)", f"{labels.dtype} of shape {tuple(labels.shape)}")
    if not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise refused(f"labels in 0..{num_classes - 1}", f"{int(labels.min())}..{int(labels.max())}")
