"""Data sets that a custom function reads: the files of their content, and the call of the function.

The function takes `dataset.root` (or None) and returns train_images, train_labels, test_images, test_labels and the number of
classes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NoReturn

from trainables.custom.files import source_file
from trainables.custom.imports import load_function, source_of
from trainables.data.custom_arrays import validated_arrays
from trainables.data.dataset import Arrays, Dataset, Files
from trainables.data.file_digests import MODULE
from trainables.data.source import DatasetSource
from trainables.errors import DataError


class CustomDataset(Dataset):
    """The arrays that a custom function returns; their facts are known only after it is called."""

    description = "a custom function"
    digests = "raw content"

    def files(self, source: DatasetSource) -> Files:
        return dataset_files(source.name, source.root, source.modules_path)

    def read(self, source: DatasetSource) -> Arrays:
        return read_custom_dataset(source.name, source.root, source.modules_path)


def dataset_files(reference: str, root: str | None, modules_path: str) -> Files:
    """Name and path of the function's source file and of every file below `root`, sorted by name.

    Raises:
        ConfigError: there is no such module.
        DataError: there is no such folder.
    """
    files = [(MODULE, source_file("dataset", reference, modules_path))]
    if root is None:
        return files
    root = os.path.expanduser(root)
    if not Path(root).is_dir():
        raise DataError(f"dataset.root: no folder {root!r} on this machine", f"give the folder that {reference} reads")
    link_parents: dict[str, tuple[str, ...]] = {root: ()}
    for folder, folders, names in os.walk(root, followlinks=True, onerror=_raise):
        folders[:] = [name for name in folders if name != "__pycache__"]
        _require_no_loops(folder, folders, link_parents)
        files += [(f"root/{os.path.relpath(Path(folder, name), root)}", Path(folder, name)) for name in names]
    for _, path in files:
        if not path.is_file():
            raise DataError(f"dataset.root: {str(path)!r} must be a file that can be read", "it may be a broken link")
    return sorted(files)


def _require_no_loops(folder: str, folders: list[str], link_parents: dict[str, tuple[str, ...]]) -> None:
    """Raises DataError for a link to a folder that contains the link, which os.walk would follow until its path is too long.

    Args:
        link_parents: folder -> real paths of the folders that hold the links on the path to it; extended by `folders`.
    """
    parents = link_parents.pop(folder)
    for path in (os.path.join(folder, name) for name in folders):
        link_parents[path] = parents
        if os.path.islink(path):
            real, link_parents[path] = os.path.realpath(path), (*parents, os.path.realpath(folder))
            if any(os.path.commonpath([real, parent]) == real for parent in link_parents[path]):
                raise DataError(f"dataset.root: {path!r} must not be a link to a folder that holds it", "remove the link")


def _raise(error: OSError) -> NoReturn:
    """Makes an unreadable folder an error; os.walk would skip it and the digest would miss its files."""
    raise error


def read_custom_dataset(reference: str, root: str | None, modules_path: str) -> tuple[list[Any], int]:
    """Images uint8 (N, C, H, W) and labels int64 (N,) of both splits, and the number of classes, as the function returns them.

    Raises:
        DataError: the function fails or returns something else, or its file has changed since it was imported.
    """
    if source_file("dataset", reference, modules_path).read_bytes() != source_of(reference):
        # Otherwise the cache would keep the images of the old file under the signature of the new one.
        raise DataError(f"dataset: the file of {reference} must stay as it is while a sweep runs", "run the sweep again")
    try:
        train_images, train_labels, test_images, test_labels, num_classes = load_function(reference)(
            root and os.path.expanduser(root)
        )
    except Exception as error:
        rule = "return train_images, train_labels, test_images, test_labels, num_classes"
        raise DataError(f"dataset: {reference} must {rule}, got {type(error).__name__}: {error}", "correct it") from error
    return validated_arrays(reference, (train_images, train_labels, test_images, test_labels), num_classes)
