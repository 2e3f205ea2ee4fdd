"""Images that are scaled once and kept: their pixels, damage, killed and simultaneous builds, and too little room."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional

from tests.support.dataset_folders import all_images, imagenet, streamed, striped
from trainables.data import prescaled as prescaled_module
from trainables.data.batches import training_batches
from trainables.data.file_index import imagenet as imagenet_index
from trainables.data.prescaled import PLACE, PrescaledImages, needed_bytes, prescaled_images
from trainables.data.splits import load_data
from trainables.data.streaming import Stream
from trainables.errors import DataError, WrongNodeError
from trainables.runtime.cache_folder import VARIABLE

SHORTER = 37  # 256/224 of the side 32


@pytest.fixture(autouse=True)
def few_images_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prescaled_module, "SHARD_IMAGES", 10)
    monkeypatch.setattr(prescaled_module, "SCALED_AT_ONCE", 4)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    load_data.cache_clear()


def shards(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "prescaled").glob("*.pixels"))


def train_images(root: Path) -> PrescaledImages:
    return prescaled_images(root, imagenet_index(root).train, 32)


def test_kept_images_are_those_of_torchvision(tmp_path: Path) -> None:
    root = striped(tmp_path / "images")
    names = imagenet_index(root).train
    images = prescaled_images(root, names, 32)
    assert len(images) == len(names) == 24
    for number, name in enumerate(names):
        expected = functional.resize(Image.open(root / name).convert("RGB"), [SHORTER])
        assert np.array_equal(np.asarray(images.image(number)), np.asarray(expected))
    chosen = images.select(torch.tensor([23, 4]))
    assert np.array_equal(np.asarray(chosen.image(1)), np.asarray(images.image(4)))
    assert [path.stat().st_size for path in images.shards] == [
        int(3 * (rows["height"].astype(int) * rows["width"]).sum()) + len(rows) * PLACE.itemsize + 32
        for rows in (images.places[:10], images.places[10:20], images.places[20:])
    ]


@pytest.mark.process
def test_prescaled_batches_do_not_depend_on_workers_and_evaluation_has_the_pixels_of_the_files(tmp_path: Path) -> None:
    root = striped(tmp_path / "images")

    def everything(threads: int, prescaled: bool) -> tuple[list[Tensor], list[Tensor]]:
        data = streamed(root, threads, prescaled=prescaled, validation=0.25)
        trained = [images for images, _ in training_batches(data, 5, seed=0, epoch=3)]
        return trained, [all_images(split) for split in (data.train, data.validation, data.test)]

    from_files, alone = everything(0, prescaled=False), everything(0, prescaled=True)
    assert all(torch.equal(*pair) for pair in zip(from_files[1], alone[1], strict=True))
    assert not any(torch.equal(*pair) for pair in zip(from_files[0], alone[0], strict=True))
    for threads in (1, 2):
        again = everything(threads, prescaled=True)
        assert all(torch.equal(*pair) for part in (0, 1) for pair in zip(again[part], alone[part], strict=True))


def test_cost_of_a_part_is_that_of_its_images(tmp_path: Path) -> None:
    images = train_images(imagenet(tmp_path / "images"))
    read: list[int] = []

    class Counted(PrescaledImages):
        def image(self, index: int) -> Image.Image:
            read.append(index)
            return PrescaledImages.image(self, index)

    stream = Stream(images=Counted(shards=images.shards, places=images.places), side=32, device="cpu", workers=0)
    part = [torch.tensor([3, 20]), torch.tensor([7])]
    assert [len(batch) for batch in stream.batches(part)] == [2, 1]
    assert [len(batch) for batch in stream.augmented(part, True, torch.Generator().manual_seed(0))] == [2, 1]
    assert read == [3, 20, 7] * 2


@pytest.mark.parametrize("damage", ["cut", "shorter", "longer", "table"])
def test_shard_of_another_length_or_table_is_written_anew(tmp_path: Path, damage: str) -> None:
    root = imagenet(tmp_path / "images")
    shard = train_images(root).shards[0]
    whole = shard.read_bytes()
    middle = len(whole) - 100
    changed = {
        "cut": whole[:-1],
        "shorter": whole[1:],
        "longer": whole + b"\0",
        "table": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
    }
    shard.write_bytes(changed[damage])
    train_images(root)
    assert shard.read_bytes() == whole


def test_damaged_pixel_is_refused_when_it_is_read(tmp_path: Path) -> None:
    images = train_images(imagenet(tmp_path / "images"))
    shard = images.shards[1]
    content = bytearray(shard.read_bytes())
    content[int(images.places["offset"][12]) + 5] ^= 1
    shard.write_bytes(content)
    images.image(11)
    with pytest.raises(DataError, match=r"^the cache file '.*\.pixels' is damaged; remove it, it is written anew$"):
        images.image(12)


def test_changed_image_is_decoded_anew_and_others_are_kept(tmp_path: Path) -> None:
    root = imagenet(tmp_path / "images")
    before = train_images(root)
    times = [shard.stat().st_mtime_ns for shard in before.shards]
    Image.new("RGB", (50, 90), (9, 9, 9)).save(root / imagenet_index(root).train[0])
    after = train_images(root)
    assert after.shards[1:] == before.shards[1:]
    assert [shard.stat().st_mtime_ns for shard in before.shards] == times
    assert np.asarray(after.image(0)).max() == 9
    os.utime(root / imagenet_index(root).train[23], (1, 1))
    assert train_images(root).shards[2] != before.shards[2]


class _Killed(BaseException):
    """Stands for the end of the process."""


def test_build_that_is_killed_at_any_write_goes_on_to_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = imagenet(tmp_path / "images")
    files = train_images(root).shards
    whole = {path.name: path.read_bytes() for path in files}
    scaled, done = prescaled_module._scaled, 0

    def counted(limit: int, path: Path, shorter: int) -> NDArray[np.uint8]:
        nonlocal done
        done += 1
        if done > limit:
            raise _Killed
        return scaled(path, shorter)

    monkeypatch.setattr(prescaled_module, "processors", lambda: 1)
    for limit in (0, 1, 9, 10, 11, 23):
        shutil.rmtree(tmp_path / "cache")
        done = 0
        monkeypatch.setattr(prescaled_module, "_scaled", partial(counted, limit))
        with pytest.raises(_Killed):
            train_images(root)
        left = shards(tmp_path)
        assert len(left) == limit // 10  # whole shards alone
        (tmp_path / "cache" / "prescaled" / f".{files[-1].name}.1-1.partial").write_bytes(b"of a killed process")
        monkeypatch.setattr(prescaled_module, "_scaled", scaled)
        train_images(root)
        assert {path.name: path.read_bytes() for path in shards(tmp_path)} == whole
        assert not list((tmp_path / "cache" / "prescaled").glob(".*.partial"))


def _build(root: Path, cache: str) -> None:
    os.environ[VARIABLE] = cache
    train_images(root)


@pytest.mark.process
def test_two_processes_build_the_same_files_at_once(tmp_path: Path) -> None:
    root = imagenet(tmp_path / "images")
    whole = {path.name: path.read_bytes() for path in train_images(root).shards}
    shutil.rmtree(tmp_path / "cache")
    processes = [get_context("fork").Process(target=_build, args=(root, str(tmp_path / "cache"))) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert {path.name: path.read_bytes() for path in shards(tmp_path)} == whole
    assert not list((tmp_path / "cache" / "prescaled").glob(".*.partial"))


def test_too_little_room_is_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = imagenet(tmp_path / "images")
    names = imagenet_index(root).train
    sizes = [Image.open(root / name).size for name in names]
    images = sum(3 * SHORTER * (SHORTER * max(size) // min(size)) for size in sizes)
    assert needed_bytes(root, names, SHORTER) == images + 24 * PLACE.itemsize
    usage = namedtuple("usage", ["total", "used", "free"])
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**9, 0, images))
    with pytest.raises(WrongNodeError, match=r"must have room for 24 scaled images: about .*, got .* free; free space there"):
        train_images(root)
    assert shards(tmp_path) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**9, 0, images + 24 * PLACE.itemsize))
    assert len(train_images(root)) == 24


def test_image_that_cannot_be_kept_is_named(tmp_path: Path) -> None:
    root = imagenet(tmp_path / "images")
    file = root / imagenet_index(root).train[5]
    Image.new("RGB", (1200, 1)).save(file)
    with pytest.raises(DataError, match=rf"{file.name}' must be at most 1000 times the shorter, got 1200 x 1"):
        train_images(root)
    file.write_bytes(b"not a jpeg")
    with pytest.raises(DataError, match=f"{file.name}': "):
        train_images(root)
