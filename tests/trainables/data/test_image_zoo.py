"""Every entry of the image zoo is decoded exactly, rejected by name and rule, or skipped and counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.image_zoo import FOUND, PIXELS, REFUSED, ZOO, Entry, Left, Read, Refused, base
from tests.support.written_images import SIDE
from trainables.config.trial import DatasetConfig
from trainables.data.datasets import content_digest, file_index, load, signature, skipped
from trainables.data.source import DatasetSource
from trainables.data.splits import load_data
from trainables.data.streaming import center_crop
from trainables.errors import DataError


def of(entries: list[Entry], kind: type) -> pytest.MarkDecorator:
    chosen = [entry for entry in entries if isinstance(entry.outcome, kind)]
    return pytest.mark.parametrize("entry", chosen, ids=[entry.name.encode("unicode_escape").decode() for entry in chosen])


def built(entry: Entry, root: Path) -> DatasetSource:
    entry.build(base(root))
    return DatasetSource(name="image_folder", root=str(root), image_size=SIDE)


def test_zoo_is_large_with_unique_names() -> None:
    assert len({entry.name for entry in ZOO}) == len(ZOO) >= 60


@of([*PIXELS, *FOUND], Read)
@pytest.mark.filterwarnings("error")
def test_zoo_image_is_decoded_exactly(tmp_path: Path, entry: Entry) -> None:
    source = built(entry, tmp_path / "data")
    assert isinstance(entry.outcome, Read)
    listed = file_index(source)
    image = load(source).train_images[listed.train.index(entry.outcome.name)].numpy().transpose(1, 2, 0)
    assert np.abs(image.astype(int) - entry.outcome.pixels.astype(int)).max() <= entry.outcome.tolerance
    assert len(content_digest(source)) == 32
    assert skipped(source) == ()


@of(PIXELS, Read)
@pytest.mark.filterwarnings("error")
def test_streamed_zoo_image_is_decoded_exactly(tmp_path: Path, entry: Entry) -> None:
    source = built(entry, tmp_path / "data")
    (tmp_path / "data" / "test").rename(tmp_path / "data" / "val")
    assert isinstance(entry.outcome, Read)
    source = DatasetSource(name="imagenet", root=source.root)
    data = load_data(DatasetConfig(name="imagenet", image_size=SIDE, validation=0.0), source, "cpu")
    place = file_index(source).train.index(entry.outcome.name)
    ((images, _),) = data.train.batches([torch.tensor([place])])
    expected = np.asarray(center_crop(Image.fromarray(entry.outcome.pixels), SIDE)).transpose(2, 0, 1)
    assert np.abs(images[0].numpy().astype(int) - expected.astype(int)).max() <= entry.outcome.tolerance


@of(REFUSED, Refused)
@pytest.mark.filterwarnings("error")
def test_invalid_zoo_entry_is_rejected_by_name_and_rule(tmp_path: Path, entry: Entry) -> None:
    source = built(entry, tmp_path / "data")
    assert isinstance(entry.outcome, Refused)
    with pytest.raises(DataError) as caught:
        load(source)
    message = str(caught.value)
    assert f"{tmp_path}/data/" in message
    assert entry.outcome.name in message
    assert entry.outcome.rule in message
    assert "\n" not in message


@of(FOUND, Left)
def test_zoo_entry_that_is_not_data_is_skipped_and_counted(tmp_path: Path, entry: Entry) -> None:
    plain = DatasetSource(name="image_folder", root=str(base(tmp_path / "plain")), image_size=SIDE)
    source = built(entry, tmp_path / "data")
    assert isinstance(entry.outcome, Left)
    assert [left.reason for left in skipped(source)] == [entry.outcome.reason]
    assert content_digest(source) == content_digest(plain)
    assert signature(source) != signature(plain)
    assert torch.equal(load(source).train_images, load(plain).train_images)
