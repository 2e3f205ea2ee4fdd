"""A sweep under another name is the same sweep; whenever its renaming is interrupted, at most one of both names is one."""

from __future__ import annotations

import shutil
from itertools import count
from pathlib import Path

import pytest

from orchestrator.errors import SetupError, UserError
from orchestrator.execution.sync import plan_of
from orchestrator.housekeeping.renaming import rename_sweep, with_name
from orchestrator.spec.loader import spec_from_resolved
from orchestrator.state.driver_lease import LEASE_FILES
from orchestrator.state.sweep_folder import RENAMED, SweepFolder, open_sweep, sweep_names
from orchestrator.storage.base import Storage
from orchestrator.storage.local import LocalStorage
from tests.support.killed_trials import Fuse, KilledError, MortalStorage
from tests.support.recorded_sweeps import recorded_sweep


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> LocalStorage:
    """A sweep that has not finished, with the decisions of a search."""
    storage = LocalStorage(str(tmp_path_factory.mktemp("made") / "runs"))
    recorded_sweep(storage, Path(storage.root).parent, "tiny", unfinished=2)
    storage.write("sweeps/tiny/decisions.jsonl", b'{"a": 1}\n')
    storage.write("sweeps/tiny/stop-key", b"")
    return storage


@pytest.fixture
def storage(made: LocalStorage, tmp_path: Path) -> LocalStorage:
    return LocalStorage(str(shutil.copytree(made.root, tmp_path / "runs")))


def records(storage: Storage, name: str) -> dict[str, bytes]:
    """File -> content of a sweep's folder, without leases and the log."""
    prefix = f"sweeps/{name}/"
    left_out = {prefix + file for file in (*LEASE_FILES, "sweep.log")}
    return {path.removeprefix(prefix): storage.read(path) or b"" for path in storage.files(prefix) if path not in left_out}


def assert_named(storage: Storage, name: str) -> None:
    """All records of a sweep carry its name, and its trials are those that its plan computes."""
    folder = open_sweep(storage, name)
    state = folder.read_state()
    assert state is not None
    assert state.sweep == name
    assert spec_from_resolved(storage.read_json(folder.file("spec.json"))).name == name
    assert [trial.key for trial in plan_of(folder).trials] == list(state.trials)
    assert (state.counts()["finished"], state.counts()["waiting"]) == (5, 2)
    assert f"name: {name}\n" in (storage.read(folder.file("sweep.yaml")) or b"").decode()


def test_a_renamed_sweep_has_all_records_under_its_new_name_alone(storage: LocalStorage) -> None:
    before, trials = records(storage, "tiny"), storage.files("trials")
    folder = rename_sweep(storage, "tiny", "small")
    assert sweep_names(storage) == storage.names("sweeps") == ["small"]
    assert_named(storage, "small")
    after = records(storage, "small")
    assert after.keys() - {RENAMED} == before.keys()
    changed = {"spec.json", "state.json", "sweep.yaml"}
    assert {file for file in before if before[file] != after[file]} == changed
    assert storage.files("trials") == trials
    log = (storage.read(folder.file("sweep.log")) or b"").decode().splitlines()
    assert log[0].endswith("made up")
    assert log[-1].endswith("renamed from tiny")


def test_a_renaming_that_is_killed_after_any_write_is_completed_when_it_is_repeated(made: LocalStorage, tmp_path: Path) -> None:
    rename_sweep(undisturbed := LocalStorage(str(shutil.copytree(made.root, tmp_path / "undisturbed"))), "tiny", "small")
    between = 0
    for number in count(1):
        storage = LocalStorage(str(shutil.copytree(made.root, tmp_path / str(number))))
        try:
            rename_sweep(MortalStorage(storage.root, Fuse(at=number)), "tiny", "small")
            break
        except KilledError:
            names = sweep_names(storage)
        if names:
            assert len(names) == 1
            assert_named(storage, names[0])
        else:
            between += 1
            for name in ("tiny", "small"):
                with pytest.raises(UserError, match=r"'tiny' to 'small' was interrupted; `drive-sweep rename tiny small"):
                    open_sweep(storage, name)
        if storage.names("sweeps") != ["small"]:
            rename_sweep(storage, "tiny", "small")
        assert storage.names("sweeps") == ["small"]
        assert_named(storage, "small")
        assert records(storage, "small").keys() == records(undisturbed, "small").keys()
    assert number > 15
    assert between >= 1


def test_what_is_taken_wrong_or_running_is_refused_and_changes_nothing(storage: LocalStorage, tmp_path: Path) -> None:
    recorded_sweep(storage, tmp_path, "other")
    before = records(storage, "tiny")
    refusals = {
        "other": "there is a sweep 'other'",
        "a b": "the new name must be at most 100 letters",
        "../x": "the new name must be at most 100 letters",
        "tiny": "the new name must be another one",
    }
    for new, message in refusals.items():
        with pytest.raises(UserError, match=message):
            rename_sweep(storage, "tiny", new)
    with SweepFolder(storage, "tiny").driver_lease(), pytest.raises(SetupError, match="sweep 'tiny' is being run by"):
        rename_sweep(storage, "tiny", "small")
    with pytest.raises(UserError, match="no sweep 'none'"):
        rename_sweep(storage, "none", "small")
    storage.write("sweeps/other/spec.json", b"{")
    with pytest.raises(UserError, match=r"spec.json .* must be as the sweep wrote it"):
        rename_sweep(storage, "other", "third")
    assert records(storage, "tiny") == before
    assert sweep_names(storage) == ["other", "tiny"]


def test_a_name_can_be_used_again_and_given_back(storage: LocalStorage, tmp_path: Path) -> None:
    rename_sweep(storage, "tiny", "small")
    recorded_sweep(storage, tmp_path, "tiny")
    rename_sweep(storage, "tiny", "new")
    rename_sweep(storage, "small", "tiny")
    assert sweep_names(storage) == ["new", "tiny"]
    assert_named(storage, "tiny")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: a # b\nmodel: a\n", "name: n # b\nmodel: a\n"),
        ("# name: a\nname:  'a'\n", "# name: a\nname:  'n'\n"),
        ('name: "a"\nx:\n  name: a\n', 'name: "n"\nx:\n  name: a\n'),
        ("name: ab\n", "name: ab\n"),
        ("{name: a}\n", "{name: a}\n"),
    ],
)
def test_only_the_name_in_a_sweep_file_changes(text: str, expected: str) -> None:
    assert with_name(text, "a", "n") == expected
