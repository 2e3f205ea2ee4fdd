"""The published files of CIFAR-10, CIFAR-100 and Fashion-MNIST are read, others are rejected."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.dataset_folders import fashion_files
from trainables.data.datasets import content_digest, download_if_missing, load
from trainables.data.source import DatasetSource
from trainables.errors import DataError


def cifar100(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """Its three files; torchvision takes their MD5 for the published ones."""
    from torchvision.datasets import CIFAR100

    draw = np.random.default_rng(0)
    content: dict[str, dict[str, Any]] = {"meta": {"fine_label_names": [f"class {i}" for i in range(100)]}}
    for name, count in (("train", 7), ("test", 3)):
        content[name] = {
            "data": draw.integers(0, 256, (count, 3072), dtype=np.uint8),
            "fine_labels": draw.integers(0, 100, count).tolist(),
            "coarse_labels": [0] * count,
        }
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    for name, part in content.items():
        (folder / name).write_bytes(pickle.dumps(part))
    md5 = {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in content}
    monkeypatch.setattr(CIFAR100, "train_list", [["train", md5["train"]]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", md5["test"]]])
    monkeypatch.setattr(CIFAR100, "meta", CIFAR100.meta | {"md5": md5["meta"]})
    return content


@pytest.mark.parametrize("below", ["", "cifar-100-python"])
def test_cifar100_reads_the_fine_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str) -> None:
    content = cifar100(tmp_path, monkeypatch)
    images = load(DatasetSource(name="cifar100", root=str(tmp_path / below)))
    assert images.num_classes == 100
    assert np.array_equal(images.train_images.numpy().reshape(7, 3072), content["train"]["data"])
    assert np.array_equal(images.test_images.numpy().reshape(3, 3072), content["test"]["data"])
    assert images.train_images.shape == (7, 3, 32, 32)
    assert images.train_labels.tolist() == content["train"]["fine_labels"]
    assert images.test_labels.tolist() == content["test"]["fine_labels"]


def test_cifar100_rejects_other_content_than_the_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cifar100(tmp_path, monkeypatch)
    with open(tmp_path / "cifar-100-python" / "test", "ab") as file:
        file.write(b"more")
    with pytest.raises(DataError, match=rf"CIFAR-100 in '{tmp_path / 'cifar-100-python'}' is damaged"):
        load(DatasetSource(name="cifar100", root=str(tmp_path)))
    (tmp_path / "cifar-100-python" / "meta").unlink()
    with pytest.raises(DataError, match=r"has no file meta of cifar100; give another folder, or set dataset\.download: true"):
        load(DatasetSource(name="cifar100", root=str(tmp_path)))


def test_cifar100_is_downloaded_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR100

    monkeypatch.setattr(CIFAR100, "download", lambda reader: cifar100(Path(reader.root), monkeypatch))
    download_if_missing(DatasetSource(name="cifar100", root=str(tmp_path), download=True))
    assert (tmp_path / "cifar-100-python" / "train").is_file()


@pytest.mark.parametrize("below", ["FashionMNIST/raw", "raw", ""])
@pytest.mark.parametrize("packed", [True, False])
def test_fashion_mnist_reads_the_published_files(tmp_path: Path, below: str, packed: bool) -> None:
    arrays = fashion_files(tmp_path / "set" / below, packed)
    images = load(DatasetSource(name="fashion_mnist", root=str(tmp_path / "set")))
    assert np.array_equal(images.train_images.numpy()[:, 0], arrays["train-images-idx3-ubyte"])
    assert images.train_labels.tolist() == arrays["train-labels-idx1-ubyte"].tolist()
    assert np.array_equal(images.test_images.numpy()[:, 0], arrays["t10k-images-idx3-ubyte"])
    assert images.test_labels.tolist() == arrays["t10k-labels-idx1-ubyte"].tolist()


def test_digest_does_not_depend_on_compression(tmp_path: Path) -> None:
    fashion_files(tmp_path / "packed", packed=True)
    fashion_files(tmp_path / "plain", packed=False)
    packed, plain = (DatasetSource(name="fashion_mnist", root=str(tmp_path / part)) for part in ("packed", "plain"))
    assert content_digest(packed) == content_digest(plain)


def test_damaged_gzip_file_is_rejected(tmp_path: Path) -> None:
    fashion_files(tmp_path / "set", packed=True)
    path = tmp_path / "set" / "train-images-idx3-ubyte.gz"
    for content in (path.read_bytes()[:100], b"not gzip at all"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz' is damaged"):
            content_digest(DatasetSource(name="fashion_mnist", root=str(tmp_path / "set")))


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize("left", [0, 2, 20])
def test_truncated_fashion_mnist_is_rejected_with_its_folder(tmp_path: Path, packed: bool, name: str, left: int) -> None:
    fashion_files(tmp_path / "set", packed)
    path = tmp_path / "set" / (f"{name}.gz" if packed else name)
    path.write_bytes(path.read_bytes()[: min(left, path.stat().st_size - 1)])
    with pytest.raises(DataError, match=rf"'{tmp_path / 'set'}.*' is damaged"):
        load(DatasetSource(name="fashion_mnist", root=str(tmp_path / "set")))


def test_cifar10_rejects_other_content_than_the_published(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        batch = {"data": draw.integers(0, 256, (2, 3072), dtype=np.uint8), "labels": [0, 1]}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    with pytest.raises(DataError, match=rf"CIFAR-10 in '{folder}' is damaged"):
        load(DatasetSource(name="cifar10", root=str(tmp_path)))
