"""The identity of a storage is made once, and survives the loss of either place that has it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.errors import SetupError
from orchestrator.state import storage_identity
from orchestrator.state.driver_lease import LeaseTimes, driver_lease
from orchestrator.state.driver_liveness import driver_alive, this_driver
from orchestrator.state.storage_identity import FILE, FOLDER, ensure_identity, known_identity
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.state.sweep_state import SweepState
from orchestrator.storage.local import LocalStorage
from orchestrator.storage.s3 import S3Storage

SOON = LeaseTimes(settle_s=0.3)


def folder_in(root: Path, name: str = "one") -> SweepFolder:
    return SweepFolder(LocalStorage(str(root)), name)


def test_sweeps_of_a_storage_have_one_identity_and_other_storages_another(tmp_path: Path) -> None:
    first = folder_in(tmp_path / "a")
    assert known_identity(first) == ""
    identity = ensure_identity(first)
    assert len(bytes.fromhex(identity)) == 8
    assert ensure_identity(first) == known_identity(folder_in(tmp_path / "a", "two")) == identity
    assert ensure_identity(folder_in(tmp_path / "b")) != identity


def test_sweeps_that_begin_at_the_same_moment_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_identity, "PAUSE_S", 0.01)
    folders = [folder_in(tmp_path, f"sweep{number}") for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ensure_identity, folders))) == 1


@pytest.mark.server
def test_sweeps_on_an_object_store_agree(s3: S3Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_identity, "PAUSE_S", 0.05)
    folders = [SweepFolder(s3, f"sweep{number}") for number in range(3)]
    with ThreadPoolExecutor(3) as pool:
        assert len(set(pool.map(lambda folder: ensure_identity(folder, SOON), folders))) == 1


@pytest.mark.parametrize("damage", [b"", b'{"identity": "0123456789abcdef"', b'{"layout": 1}'], ids=["empty", "cut", "other"])
def test_identity_is_restored_from_the_state(damage: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_in(tmp_path)
    identity = ensure_identity(folder)
    folder.write_state(SweepState(sweep="one", identity=identity))
    folder.storage.write(FILE, damage)
    assert known_identity(folder) == identity
    assert ensure_identity(folder) == identity
    assert known_identity(folder_in(tmp_path, "two")) == identity
    assert FILE in capsys.readouterr().err


def test_identity_that_somebody_has_been_making_for_too_long_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_identity, "PAUSE_S", 0.001)
    folder = folder_in(tmp_path)
    with (
        driver_lease(folder.storage, FOLDER, this_driver, driver_alive),
        pytest.raises(SetupError, match=r"the identity of storage .* is being made by another process; try again"),
    ):
        ensure_identity(folder)
