"""A trial whose storage has no room leaves whole files, and ends with the same result once there is room."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from orchestrator.storage import full_storage
from orchestrator.storage.local import LocalStorage
from tests.orchestrator.storage.test_full_storage import files
from tests.support.killed_trials import FullStorage, Fuse
from tests.support.small_disks import small_disk
from tests.support.trials import metric_points, run, tiny_config, tiny_training, trial_folder, undisturbed
from trainables.errors import StorageFullError
from trainables.records.file_names import ERROR

CONFIG = tiny_config(warmup_epochs=1, training=tiny_training(epochs=1))


@pytest.fixture(autouse=True)
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(full_storage, "GRACE_S", 0.0)


@pytest.mark.slow
def test_a_trial_without_room_from_any_write_on_ends_with_the_same_result(tmp_path: Path) -> None:
    expected = undisturbed(CONFIG, tmp_path / "undisturbed")
    for number in count(1):
        storage = FullStorage(str(tmp_path / str(number)), Fuse(at=number))
        try:
            run(CONFIG, storage)
            break
        except StorageFullError:
            pass
        assert not {name for name in files(storage.folder) if name.startswith(".")}
        assert trial_folder(CONFIG, storage).read(ERROR) is None
        room = LocalStorage(storage.root)
        assert (run(CONFIG, room, 2)["model_sha256"], metric_points(CONFIG, room)) == expected
    assert number > 10


def test_a_trial_on_a_disk_that_is_full_again_and_again_ends_with_the_same_result(tmp_path: Path) -> None:
    expected = undisturbed(CONFIG, tmp_path / "undisturbed")
    with small_disk(tmp_path / "disk", kibibytes=64) as disk:
        storage = LocalStorage(str(disk.folder))
        for attempt in count(1):
            try:
                result = run(CONFIG, storage, attempt)
                break
            except StorageFullError:
                assert not {name for name in files(disk.folder) if name.startswith(".")}
                disk.resize(64 + 48 * attempt)
        assert attempt > 3
        assert (result["model_sha256"], metric_points(CONFIG, storage)) == expected
