"""Where a node locates the planned data: its own files, a copy of them, or images fetched from another node."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support.faulty_nodes import digit_images
from tests.support.trials import tiny_config
from trainables.custom.files import CustomFiles
from trainables.data import datasets
from trainables.data.datasets import content_digest, decoded_file, load, signature
from trainables.data.source import DatasetSource
from trainables.data.staging import StagedDataset
from trainables.errors import DataError, WrongNodeError
from trainables.runtime.cache_folder import cache_folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DRIVE_SWEEP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def planned(tmp_path: Path) -> StagedDataset:
    source = DatasetSource(name="image_folder", root=str(digit_images(tmp_path / "data", 40, 20)), image_size=8)
    return StagedDataset(source=source, digest=content_digest(source), signature=signature(source))


def at(planned: StagedDataset, root: Path) -> StagedDataset:
    """The same plan on a node where the data set's folder is another one."""
    return replace(planned, source=replace(planned.source, root=str(root)))


def test_planned_files_are_used_without_hashing(planned: StagedDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "content_digest", None)
    assert planned.locate() == planned.source


def test_copy_is_hashed_once_per_node(planned: StagedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = at(planned, Path(shutil.copytree(str(planned.source.root), tmp_path / "copy")))
    assert copy.locate() == copy.source
    monkeypatch.setattr(datasets, "content_digest", None)
    replace(copy, source=replace(copy.source, download=True)).locate()  # as another process asks
    (record,) = cache_folder().glob("*.digest")
    assert record.read_text() == planned.digest


def test_other_files_than_the_planned_ones_are_rejected(planned: StagedDataset, tmp_path: Path) -> None:
    other = at(planned, digit_images(tmp_path / "other", 41, 20))
    with pytest.raises(WrongNodeError, match=rf"must hold the files .* \(digest {planned.digest}\), got others"):
        other.locate()


def test_node_without_data_fetches_the_images_once(planned: StagedDataset, tmp_path: Path) -> None:
    fetches = []

    def fetch() -> bytes:
        fetches.append(1)
        return decoded_file(planned.source).read_bytes()

    bare = replace(at(planned, tmp_path / "nowhere"), fetch=fetch)
    fetched, local = load(bare.locate()), load(planned.locate())
    assert torch.equal(fetched.train_images, local.train_images)
    assert torch.equal(fetched.test_labels, local.test_labels)
    assert bare.prepare() == bare.locate()
    assert fetches == [1]


def test_failed_fetch_is_reported_with_both_reasons(planned: StagedDataset, tmp_path: Path) -> None:
    def fetch() -> bytes:
        raise DataError("it is too large", "stage it by hand")

    with pytest.raises(WrongNodeError, match=r"no folder .*nowhere.* \(it is too large\).*; stage it by hand$"):
        replace(at(planned, tmp_path / "nowhere"), fetch=fetch).locate()
    with pytest.raises(WrongNodeError, match="no folder"):
        at(planned, tmp_path / "nowhere").locate()


def test_data_that_appear_later_are_located(planned: StagedDataset, tmp_path: Path) -> None:
    late = at(planned, tmp_path / "late")
    with pytest.raises(WrongNodeError):
        late.locate()
    shutil.copytree(str(planned.source.root), tmp_path / "late")
    assert late.locate() == late.source


# What a node's disks refuse is no fault of the trial: another node may do better


def test_unwritable_cache_is_a_wrong_node_error(
    planned: StagedDataset, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = at(planned, Path(shutil.copytree(str(planned.source.root), tmp_path / "copy")))
    cache.write_text("a file where the folder should be")
    for ask in (copy.locate, planned.prepare, replace(at(planned, tmp_path / "nowhere"), fetch=lambda: b"").locate):
        with pytest.raises(WrongNodeError, match=r"cannot be read or kept there: .*cache"):
            ask()


def test_unreadable_files_are_a_wrong_node_error(
    planned: StagedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(source: DatasetSource) -> str:
        raise DataError("0.png.gz is damaged")

    copy = at(planned, Path(shutil.copytree(str(planned.source.root), tmp_path / "copy")))
    monkeypatch.setattr(datasets, "content_digest", damaged)
    with pytest.raises(WrongNodeError, match="is damaged"):
        copy.locate()


def test_interrupted_write_leaves_no_partial_digest(
    planned: StagedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lost(BaseException):
        pass

    def lost(*arguments: object) -> None:
        raise Lost

    copy = at(planned, Path(shutil.copytree(str(planned.source.root), tmp_path / "copy")))
    with monkeypatch.context() as patch:
        patch.setattr("trainables.runtime.files.os.replace", lost)
        with pytest.raises(Lost):
            copy.locate()
    assert not list(cache_folder().glob("*.digest"))
    assert copy.locate() == copy.source


def test_shipped_weights_are_located() -> None:
    config = tiny_config(initial_weights=True)
    assert CustomFiles(initial_weights="shipped:trainables/custom/files.py").missing(config) is None
    assert "no file 'shipped:nothing.pt'" in str(CustomFiles(initial_weights="shipped:nothing.pt").missing(config))
