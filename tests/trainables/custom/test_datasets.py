"""Custom data sets: the files that decide their content, and the checks of the arrays that the function returns."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from orchestrator.errors import UserError
from orchestrator.storage.base import Storage
from tests.support.custom_modules import DATA, PLAIN, custom_dataset, plan_of, rejection, run_custom, sha256_of, write_modules
from tests.support.trials import run, tiny_config
from trainables.custom.files import CustomFiles
from trainables.data.datasets import content_digest, files, load, signature
from trainables.data.source import DatasetSource
from trainables.errors import DataError


def test_data_digest_covers_the_files_below_the_root(folder: Path) -> None:
    def digest_of(root: str) -> str:
        return content_digest(DatasetSource(name="module:mydata.load", root=str(folder / root), modules_path=str(folder)))

    (folder / "images" / "a").mkdir(parents=True)
    (folder / "images" / "a" / "x.gz").write_bytes(b"not packed")
    before = digest_of("images")
    shutil.move(folder / "images", folder / "others")
    assert digest_of("others") == before
    (folder / "others" / "a" / "x.gz").write_bytes(b"not packe!")
    os.utime(folder / "others" / "a" / "x.gz", (1, 1))
    assert digest_of("others") != before


def test_root_with_the_storage_or_a_broken_link_is_rejected(folder: Path, storage: Storage) -> None:
    text = PLAIN.replace("name: digits", "module: mydata.load, root: ..")
    with pytest.raises(UserError, match=r"dataset.root: '\.\.' holds the storage .*runs, so its content would change"):
        plan_of(text, storage)
    (folder / "images").mkdir()
    (folder / "images" / "x.png").symlink_to("nowhere.png")
    with pytest.raises(UserError, match=r"images/x.png' must be a file that can be read; it may be a broken link"):
        plan_of(text.replace("..", "./images"), storage)


@pytest.mark.parametrize("target", [".", "..", "sub/back"])
def test_link_loops_below_the_root_are_rejected(folder: Path, tmp_path: Path, target: str) -> None:
    root = tmp_path / "images"
    (root / "sub" / "deep").mkdir(parents=True)
    if target == "sub/back":  # two links that hold each other
        other = tmp_path / "other"
        other.mkdir()
        (other / "there").symlink_to(root)
        (root / "loop").symlink_to(other)
        loop = root / "loop" / "there"
    else:
        loop = root / "sub" / "deep" / "loop"
        loop.symlink_to(target)
    with pytest.raises(DataError, match=rf"dataset\.root: '{loop}' must not be a link to a folder that holds it; remove"):
        content_digest(DatasetSource(name="module:mydata.load", root=str(root), modules_path=str(folder)))


def test_digest_covers_linked_folders_and_names_beyond_utf8(folder: Path, tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "images", tmp_path / "elsewhere"
    for path in (root, elsewhere):
        path.mkdir()
    (root / "first").symlink_to(elsewhere)
    (root / "second").symlink_to(elsewhere)  # the same folder twice is no loop
    Path(os.fsdecode(os.fsencode(elsewhere) + b"/caf\xe9.npy")).write_bytes(b"1")
    source = DatasetSource(name="module:mydata.load", root=str(root), modules_path=str(folder))
    assert [name for name, _ in files(source)] == ["module", "root/first/caf\udce9.npy", "root/second/caf\udce9.npy"]
    before = content_digest(source), signature(source)
    Path(os.fsdecode(os.fsencode(elsewhere) + b"/caf\xe9.npy")).write_bytes(b"2")
    assert content_digest(source) != before[0]


IMAGES = "import numpy as np\ni, l = np.zeros((60, 1, 8, 8), np.uint8), np.arange(60) % 10\ndef load(root): return "
NO_DATA = {
    "i, l": "must return train_images, train_labels, test_images, test_labels, num_classes, got ValueError",
    "i, l, i, l, 1": "must return num_classes as an integer from 2 on, got 1",
    "i / 255, l, i, l, 10": "must return train_images as uint8 of shape (N, C, H, W), got float64 of shape (60, 1, 8, 8)",
    "i, l, i[:, 0], l, 10": "must return test_images as uint8 of shape (N, C, H, W), got uint8 of shape (60, 8, 8)",
    "i, l[:5], i, l, 10": "must return train_labels as integers of shape (60,), got int64 of shape (5,)",
    "i, l / 2, i, l, 10": "must return train_labels as integers of shape (60,), got float64",
    "i, l, i, l, 9": "must return train_labels in 0..8, got 0..9",
    "i, l, i[:, :, 1:], l, 10": "must return test images of the shape of its training images, got (1, 7, 8) and (1, 8, 8)",
    "i, [[1], [1, 2]], i, l, 10": "must return train_labels as an array, got ValueError:",
}


@pytest.mark.parametrize(("returned", "message"), NO_DATA.items(), ids=list(NO_DATA.values()))
def test_invalid_arrays_are_rejected(folder: Path, storage: Storage, returned: str, message: str) -> None:
    write_modules(folder, mydata=IMAGES + returned)
    assert f"dataset: module:mydata.load {message}" in rejection(
        tiny_config(dataset=custom_dataset()), storage, folder, DataError
    )


def test_load_rejects_a_file_that_changed_since_its_import(folder: Path) -> None:
    config = tiny_config(dataset=custom_dataset())
    CustomFiles(modules_path=str(folder)).with_digests([config]).import_modules(config)
    write_modules(folder, mydata=DATA + "# changed\n")
    with pytest.raises(DataError, match=r"dataset: the file of module:mydata\.load must stay as it is while a sweep runs"):
        load(DatasetSource(name="module:mydata.load", modules_path=str(folder)))


def test_custom_data_equal_to_built_in_data_give_the_same_model(folder: Path, storage: Storage) -> None:
    result = run_custom(tiny_config(dataset=custom_dataset()), storage, folder)
    assert result["model_sha256"] == run(tiny_config(), storage)["model_sha256"]
    assert result["own_digests"] == {"dataset": sha256_of(DATA)}
