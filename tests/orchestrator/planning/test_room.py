"""A plan that does not fit into its storage is refused with figures, by what real small disks say is free."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.cli import main
from orchestrator.errors import SetupError
from orchestrator.planning.plan import Plan, make_plan
from orchestrator.planning.record_bytes import Written
from orchestrator.planning.room import Room, require_room, room_for
from orchestrator.planning.written_bytes import written_bytes
from orchestrator.spec.loader import load_spec
from orchestrator.storage.base import Storage
from orchestrator.storage.factory import open_storage
from orchestrator.storage.free_space import FreeSpace, free_space
from tests.support.cli import tiny_sweep
from tests.support.small_disks import small_disk


def planned(storage: Storage, scratch: Path) -> Plan:
    return make_plan(load_spec(str(tiny_sweep(scratch))), storage, hash_data=True)


def test_what_is_free_is_what_the_disk_says(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", kibibytes=512, files=20) as disk:
        before = free_space(disk.folder / "not" / "yet" / "there")
        assert before == FreeSpace(bytes=512 * 1024, files=19)
        (disk.folder / "file").write_bytes(bytes(100 * 1024))
        assert free_space(disk.folder) == FreeSpace(bytes=412 * 1024, files=18)


def test_a_plan_that_does_not_fit_is_refused_with_figures(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", kibibytes=1024) as disk:
        storage = open_storage(str(disk.folder / "runs"), create=True)
        plan = planned(storage, tmp_path)
        room = room_for(plan, written_bytes(plan, {}, storage.folder), storage)
        assert room.suffices is False
        with pytest.raises(SetupError, match=r"about \d+(\.\d)? MB, got 1\.04 MB free; free space there") as raised:
            require_room(plan, storage)
        assert (raised.value.code, "tracking.models: none" in raised.value.hint) == ("storage-too-small", True)
        require_room(plan, storage, lambda key: False)  # of what is not selected nothing is written
        disk.resize(64 * 1024)
        require_room(plan, storage)


def test_too_few_files_are_refused_too() -> None:
    room = Room(root="runs", needed=Written(bytes=10, files=5000), free=FreeSpace(bytes=10**9, files=4000))
    with pytest.raises(SetupError, match=r"must have room .*: about 5,000 files, got 4,000 free"):
        room.require()


@pytest.mark.parametrize(
    ("needed", "free", "suffices"),
    [
        (None, FreeSpace(bytes=1, files=1), None),
        (Written(bytes=10, files=9), None, None),
        (Written(bytes=10, files=9), FreeSpace(bytes=10, files=None), True),
        (Written(bytes=10, files=9), FreeSpace(bytes=10, files=9), True),
        (Written(bytes=10, files=9), FreeSpace(bytes=9, files=9), False),
    ],
)
def test_what_is_not_known_is_not_refused(needed: Written | None, free: FreeSpace | None, suffices: bool | None) -> None:
    room = Room(root="runs", needed=needed, free=free)
    assert room.suffices is suffices
    if suffices is not False:
        room.require()


def test_of_an_object_store_and_of_a_search_nothing_is_known(toy: Storage, tmp_path: Path) -> None:
    plan = planned(toy, tmp_path)
    written = written_bytes(plan, {}, toy.folder)
    assert room_for(plan, written, toy).suffices is None
    folder = open_storage(str(tmp_path / "runs"), create=True)
    assert room_for(replace(plan, settled=False), written, folder).needed is None


def test_plan_shows_the_figures_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with small_disk(tmp_path / "disk", kibibytes=1024) as disk:
        runs = str(disk.folder / "runs")
        assert main(["plan", str(tiny_sweep(tmp_path)), "--storage", runs, "--json"]) == 3
        output = capsys.readouterr()
        facts = json.loads(output.out)
        assert facts["room_suffices"] is False
        assert facts["needed_bytes"] > facts["free_bytes"] == 1024 * 1024
        assert "[storage-too-small]" in output.err
