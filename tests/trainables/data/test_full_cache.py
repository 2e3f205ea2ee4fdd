"""A cache of decoded images on a disk without room: the error names the file, and another node may be better off."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.small_disks import SmallDisk, small_disk
from tests.support.trials import DIGITS, tiny_config
from trainables.custom.files import NO_CUSTOM_FILES
from trainables.data import datasets, staging
from trainables.data.staging import StagedDataset
from trainables.errors import WrongNodeError
from trainables.pruning.kept_weights import network_shape
from trainables.runtime.cache_folder import VARIABLE


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallDisk]:
    """The cache, with too little room for the digits."""
    with small_disk(tmp_path / "cache", kibibytes=48) as mounted:
        monkeypatch.setenv(VARIABLE, str(mounted.folder))
        staging._decode_once.cache_clear()  # other tests of this process may have decoded the digits
        yield mounted


def test_the_error_names_the_cache_and_leaves_nothing(disk: SmallDisk) -> None:
    with pytest.raises(OSError, match="No space left on device") as raised:
        datasets.decoded_file(DIGITS)
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(datasets.cache_file(DIGITS)))
    assert [path.suffix for path in disk.folder.iterdir()] == [".lock"]


def test_another_node_may_have_room(disk: SmallDisk) -> None:
    with pytest.raises(WrongNodeError, match=rf"kept there: {disk.folder}.*: No space .*; .* with {VARIABLE}"):
        StagedDataset(source=DIGITS).prepare()


def test_kept_weights_are_counted_without_a_cache(disk: SmallDisk) -> None:
    facts = datasets.quick_facts(DIGITS)
    assert facts is not None
    disk.fill()
    assert network_shape(tiny_config(), facts, NO_CUSTOM_FILES).parameters == 15_418
    assert not list(disk.folder.glob("network-*"))
