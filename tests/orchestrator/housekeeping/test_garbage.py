"""gc frees what no sweep needs, never what one uses or may come to use, and completes when it was interrupted."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import SetupError
from orchestrator.execution.sweep_files import write_sweep_files
from orchestrator.housekeeping import garbage
from orchestrator.housekeeping.deletion import delete_sweep
from orchestrator.housekeeping.garbage import (
    ARCHIVES,
    CHECKPOINTS,
    DAY_S,
    HOUR_S,
    OWN_WARMUPS,
    PARTIALS,
    SNAPSHOTS,
    UNUSED,
    Garbage,
    Options,
    find_garbage,
    free_garbage,
)
from orchestrator.repair.mismatch import Scope
from orchestrator.repair.trial_records import damaged_records
from orchestrator.state.driver_lease import LeaseTimes
from orchestrator.state.driver_liveness import this_driver
from orchestrator.state.gc_lease import gc_lease
from orchestrator.state.sweep_folder import RESERVE, SweepFolder
from orchestrator.state.trial_results import read_results
from orchestrator.storage.base import Storage
from orchestrator.storage.layout import archive_trial, set_aside, trial_file
from orchestrator.storage.local import LocalStorage
from orchestrator.storage.s3 import S3Storage
from orchestrator.tracking.records import read_record
from tests.support.killed_trials import Fuse, KilledError, MortalStorage
from tests.support.recorded_sweeps import recorded_sweep
from tests.support.small_disks import small_disk
from trainables.records.file_names import CHECKPOINT, RESULT
from trainables.records.metrics import Point

EVERYTHING = Options(archives=True, unused_trials=True)
NO_SWEEP = "0123456789abcdef"
QUICK = LeaseTimes(settle_s=0.3, renew_interval_s=0.2)


def snapshot(key: str, *points: Point) -> bytes:
    """A snapshot without weights."""
    state = json.dumps({"key": key, "metrics": [point.to_json() for point in points]})
    header = json.dumps({"__metadata__": {"state": state}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(4096)


def write_snapshots(storage: Storage) -> None:
    """Makes the snapshots of recorded sweeps real ones, of one and of two epochs."""
    for key in storage.names("warmups"):
        first, second = (Point("val/accuracy", step, 0.5 + step / 10, 1000 + step) for step in (1, 2))
        storage.write(f"warmups/{key}/epoch-0001.f.safetensors", snapshot(key, first))
        storage.write(f"warmups/{key}/epoch-0002.f.safetensors", snapshot(key, first, second))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> LocalStorage:
    """Two sweeps that share seven trials and a warm-up; "wide" has another warm-up, of which one trial is not finished."""
    storage = LocalStorage(str(tmp_path_factory.mktemp("made") / "runs"))
    scratch = Path(storage.root).parent
    recorded_sweep(storage, scratch, "tiny")
    recorded_sweep(storage, scratch, "wide", "search.seed=[0, 1]")
    write_snapshots(storage)
    (other,) = sharers(storage, "wide").keys() - sharers(storage, "tiny").keys()
    storage.remove(trial_file(sharers(storage, "wide")[other][0], RESULT))
    return storage


@pytest.fixture
def storage(made: LocalStorage, tmp_path: Path) -> LocalStorage:
    """A copy of it."""
    shutil.copytree(made.root, tmp_path / "runs")
    return LocalStorage(str(tmp_path / "runs"))


def sharers(storage: Storage, name: str) -> dict[str, list[str]]:
    """Warm-up key -> the trials of a sweep that share it."""
    shared: dict[str, list[str]] = {}
    for trial in storage.read_json(f"sweeps/{name}/trials.json")["trials"]:
        if trial["warmup_key"]:
            shared.setdefault(trial["warmup_key"], []).append(trial["key"])
    return shared


def paths(found: Garbage, kind: str) -> set[str]:
    return set(found.files.get(kind, ()))


def warmups(found: Garbage) -> set[str]:
    return {path.split("/")[1] for path in paths(found, SNAPSHOTS)}


def change_state(storage: Storage, name: str, **changes: Any) -> None:
    folder = SweepFolder(storage, name)
    state = folder.read_state()
    assert state is not None
    for field, value in changes.items():
        setattr(state, field, value)
    folder.write_state(state)


def age(storage: LocalStorage, seconds: float) -> None:
    """Makes all files older."""
    then = time.time() - seconds
    for path in storage.files(""):
        os.utime(storage.path(path), (then, then))


def test_snapshots_go_when_all_trials_of_the_warmup_are_finished_in_every_sweep(storage: LocalStorage) -> None:
    (shared,) = sharers(storage, "tiny")
    for folder in ("trials", "warmups", "sweeps"):
        storage.write(f"{folder}/notes.txt", b"of the user")
    assert warmups(find_garbage(storage, Options())) == {shared}
    for key in sharers(storage, "wide")[shared][:1]:
        storage.remove(trial_file(key, RESULT))
    found = find_garbage(storage, Options())
    assert found.files == {}
    reasons = {f"1 warm-up: sweep {name!r} has trials that are not finished" for name in ("tiny", "wide")}
    assert set(found.kept) == reasons


def test_the_points_of_a_freed_warmup_stay_for_mlflow(storage: LocalStorage) -> None:
    (shared,) = sharers(storage, "tiny")
    before = read_record(storage, "warmup", shared)
    freed = free_garbage(storage, Options())
    assert len(before.points) == 2
    assert read_record(storage, "warmup", shared) == before
    assert storage.names(f"warmups/{shared}") == ["metrics.jsonl"]
    assert freed.sizes() == {SNAPSHOTS: (2, sum(one.bytes for one in freed.files[SNAPSHOTS].values()))}
    again = Point("val/accuracy", 1, 0.6, 9999)  # a wider grid trains the warm-up again, later
    storage.write(f"warmups/{shared}/epoch-0001.f.safetensors", snapshot(shared, again))
    assert read_record(storage, "warmup", shared).points == before.points


def test_a_damaged_snapshot_stays(storage: LocalStorage) -> None:
    (shared,) = sharers(storage, "tiny")
    storage.write(f"warmups/{shared}/epoch-0002.f.safetensors", b"damaged")
    found = find_garbage(storage, Options())
    assert found.files == {}
    assert f"1 warm-up: warmups/{shared}/epoch-0002.f.safetensors is no snapshot" in found.kept


def test_leftovers_of_finished_trials_go_and_those_of_others_stay(storage: LocalStorage) -> None:
    ((finished, *_),) = sharers(storage, "tiny").values()
    unfinished = next(key for keys in sharers(storage, "wide").values() for key in keys if not has_result(storage, key))
    for key in (finished, unfinished):
        for name in (CHECKPOINT, "warmup/epoch-0001.f.safetensors"):
            storage.write(trial_file(key, name), b"left")
    found = find_garbage(storage, EVERYTHING)
    assert paths(found, CHECKPOINTS) == {trial_file(finished, CHECKPOINT)}
    assert paths(found, OWN_WARMUPS) == {trial_file(finished, "warmup/epoch-0001.f.safetensors")}
    storage.write(trial_file(finished, RESULT), b"{")  # no longer known to be finished
    assert find_garbage(storage, EVERYTHING).files == {}


def has_result(storage: Storage, key: str) -> bool:
    return bool(read_results(storage, [key])[0])


def test_unfinished_files_go_when_no_writer_can_be_at_work(storage: LocalStorage) -> None:
    partial, reserve = f"trials/{NO_SWEEP}/.checkpoint.17-4.partial", SweepFolder(storage, "tiny").file(RESERVE)
    storage.write(partial, b"half")
    storage.write(reserve, b"room")
    assert paths(find_garbage(storage, Options()), PARTIALS) == {reserve}
    age(storage, HOUR_S + 60)
    assert paths(find_garbage(storage, Options()), PARTIALS) == {partial, reserve}
    change_state(storage, "tiny", driver=this_driver())
    assert paths(find_garbage(storage, Options()), PARTIALS) == {partial}


def test_archives_and_trials_of_no_sweep_go_only_if_asked_for(storage: LocalStorage) -> None:
    archive_trial(storage, next(iter(sharers(storage, "wide").values()))[0])
    storage.write(damaged := f"warmups/{NO_SWEEP}/epoch-0001.f.safetensors", b"damaged")
    set_aside(storage, damaged)
    storage.write(trial_file(NO_SWEEP, RESULT), b"{}")
    assert not {ARCHIVES, UNUSED} & find_garbage(storage, Options()).files.keys()
    found = find_garbage(storage, EVERYTHING)
    assert (len(paths(found, ARCHIVES)), paths(found, UNUSED)) == (4, set())
    assert "1 trial of no sweep: changed within a day" in found.kept
    age(storage, DAY_S + 60)
    assert paths(find_garbage(storage, EVERYTHING), UNUSED) == {trial_file(NO_SWEEP, RESULT)}
    storage.write_json("sweeps/tiny/spec.json", storage.read_json("sweeps/tiny/spec.json") | {"random": {"layers": NO_SWEEP}})
    assert paths(find_garbage(storage, EVERYTHING), UNUSED) == set()


@pytest.mark.parametrize("fault", ["running", "search", "no state", "half deleted"])
def test_what_a_sweep_uses_that_runs_or_may_grow_stays(fault: str, storage: LocalStorage) -> None:
    key = next(iter(sharers(storage, "tiny").values()))[0]
    storage.write(trial_file(key, CHECKPOINT), b"left")
    if fault == "running":
        change_state(storage, "tiny", driver=this_driver())
    elif fault == "search":
        change_state(storage, "tiny", settled=False, search={"all": "looks around"})
    elif fault == "no state":
        storage.write("sweeps/tiny/state.json", b"{")
    else:
        with pytest.raises(KilledError):
            delete_sweep(MortalStorage(storage.root, Fuse(at=3)), "tiny")
    found = find_garbage(storage, EVERYTHING)
    assert warmups(found) == set()
    assert bool(paths(found, CHECKPOINTS)) is (fault != "running")
    assert any("sweep 'tiny'" in reason for reason in found.kept)


def test_while_a_search_runs_no_warmup_and_no_trial_goes(storage: LocalStorage) -> None:
    storage.write(trial_file(NO_SWEEP, RESULT), b"{}")
    age(storage, DAY_S + 60)
    change_state(storage, "wide", settled=False, driver=this_driver())
    found = find_garbage(storage, EVERYTHING)
    assert found.files == {}
    assert found.kept == ["all warm-ups and trials of no sweep: sweep 'wide' is a search that is running"]


def test_a_damaged_list_of_trials_keeps_all_that_it_may_name(storage: LocalStorage) -> None:
    storage.write(trial_file(NO_SWEEP, RESULT), b"{}")
    age(storage, DAY_S + 60)
    storage.write("sweeps/wide/trials.json", b"{")
    found = find_garbage(storage, EVERYTHING)
    assert found.files == {}
    assert "trials.json is damaged, and `drive-sweep resume wide" in found.kept[0]


def test_a_sweep_that_is_starting_or_being_changed_refuses_it(storage: LocalStorage) -> None:
    before = storage.files("")
    with (
        SweepFolder(storage, "third").driver_lease(),
        pytest.raises(SetupError, match="sweep 'third' is starting, or being changed, by another process"),
    ):
        free_garbage(storage, EVERYTHING)
    assert storage.files("").keys() - before.keys() == {"sweeps/third/driver.lock"}


def test_no_sweep_begins_while_it_frees(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[str] = []

    def begin(storage: Storage, files: object) -> None:
        with pytest.raises(SetupError, match=r"`gc` of storage .* is being run by another process") as raised:
            SweepFolder(storage, "third").driver_lease().__enter__()
        refused.append(raised.value.code)

    monkeypatch.setitem(garbage.REMOVALS, SNAPSHOTS, begin)
    free_garbage(storage, Options())
    assert refused == ["gc-running"]
    with SweepFolder(storage, "third").driver_lease(), pytest.raises(SetupError, match="being run by"):
        SweepFolder(storage, "third").driver_lease().__enter__()


def test_sweeps_that_begin_together_do_not_take_each_other_for_a_gc(storage: LocalStorage) -> None:
    free_garbage(storage, Options())  # leaves the file of its lock
    failures: list[Exception] = []

    def begin(number: int) -> None:
        try:
            for turn in range(20):
                with SweepFolder(storage, f"s{number}-{turn}").driver_lease():
                    pass
        except SetupError as error:
            failures.append(error)

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.extended
@pytest.mark.server
def test_gc_and_sweeps_keep_apart_on_an_object_store(s3: S3Storage, tmp_path: Path) -> None:
    recorded_sweep(s3, tmp_path, "tiny")
    write_snapshots(s3)
    with gc_lease(s3, QUICK), pytest.raises(SetupError, match=r"`gc` .* is being run by process \d+ on"):
        SweepFolder(s3, "other").driver_lease(QUICK).__enter__()
    with (
        SweepFolder(s3, "other").driver_lease(QUICK),
        pytest.raises(SetupError, match=r"sweep 'other' is starting, or being changed, by process \d+ on"),
    ):
        free_garbage(s3, Options(), QUICK)
    assert free_garbage(s3, Options(), QUICK).sizes().keys() == {SNAPSHOTS}
    assert find_garbage(s3, Options()).files == {}


def test_a_gc_that_is_killed_after_any_removal_is_completed_by_the_next(made: LocalStorage, tmp_path: Path) -> None:
    for number in count(1):
        storage = LocalStorage(str(shutil.copytree(made.root, tmp_path / str(number))))
        ((shared, (finished, *_)),) = sharers(storage, "tiny").items()
        points = read_record(storage, "warmup", shared).points
        storage.write(trial_file(finished, CHECKPOINT), b"left")
        for name in ("config.json", "metrics.jsonl", RESULT):
            storage.write(trial_file(NO_SWEEP, name), b"{}")
        age(storage, DAY_S + 60)
        try:
            free_garbage(MortalStorage(storage.root, Fuse(at=number)), EVERYTHING)
            break
        except KilledError:
            age(storage, DAY_S + 60)
        free_garbage(storage, EVERYTHING)
        assert find_garbage(storage, EVERYTHING).files == {}
        assert read_record(storage, "warmup", shared).points == points
        assert not storage.files(f"trials/{NO_SWEEP}")
        assert not list(damaged_records(Scope.of(storage, thorough=True)))
    assert number > 5


def test_gc_makes_room_on_a_full_disk(made: LocalStorage, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", kibibytes=1024) as disk:
        shutil.copytree(made.root, disk.folder / "runs")
        storage = LocalStorage(str(disk.folder / "runs"))
        (shared,) = sharers(storage, "tiny")
        record = read_record(storage, "warmup", shared)
        disk.fill()
        assert free_garbage(storage, Options()).sizes()[SNAPSHOTS][0] == 2
        assert read_record(storage, "warmup", shared) == record


def test_a_sweep_file_that_wants_a_freed_warmup_again_runs(storage: LocalStorage, tmp_path: Path) -> None:
    """Its plan is as before: finished trials stay finished, and the warm-up is only trained where a trial is not."""
    free_garbage(storage, EVERYTHING)
    plan = recorded_sweep(storage, tmp_path, "tiny")
    assert all(trial.result is not None for trial in plan.trials)
    write_sweep_files(SweepFolder(storage, "tiny"), plan, "")
