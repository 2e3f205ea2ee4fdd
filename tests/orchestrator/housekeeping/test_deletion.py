"""A deleted sweep takes along what only it uses; whenever it is interrupted, the rest of the storage is whole."""

from __future__ import annotations

import shutil
from itertools import count
from pathlib import Path

import pytest

from orchestrator.errors import SetupError, UserError
from orchestrator.execution.sweep_files import write_sweep_files
from orchestrator.housekeeping.deletion import delete_sweep, plan_deletion
from orchestrator.repair.mismatch import Scope
from orchestrator.repair.trial_records import damaged_records
from orchestrator.state.driver_liveness import this_driver
from orchestrator.state.sweep_folder import DELETING, SweepFolder, open_sweep, sweep_names
from orchestrator.state.trial_results import read_results
from orchestrator.storage.base import Storage
from orchestrator.storage.layout import archive_trial
from orchestrator.storage.local import LocalStorage
from tests.support.killed_trials import Fuse, KilledError, MortalStorage
from tests.support.recorded_sweeps import recorded_sweep

WIDER = "search.seed=[0, 1]"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> LocalStorage:
    """Two sweeps that share seven trials and a warm-up; "wide" has seven more, and one warm-up."""
    storage = LocalStorage(str(tmp_path_factory.mktemp("made") / "runs"))
    recorded_sweep(storage, Path(storage.root).parent, "tiny")
    recorded_sweep(storage, Path(storage.root).parent, "wide", WIDER)
    return storage


@pytest.fixture
def storage(made: LocalStorage, tmp_path: Path) -> LocalStorage:
    """A copy of it."""
    shutil.copytree(made.root, tmp_path / "runs")
    return LocalStorage(str(tmp_path / "runs"))


def assert_whole(storage: Storage) -> None:
    """Every sweep of the storage has the results of all its trials, and no record is damaged."""
    for name in sweep_names(storage):
        state = SweepFolder(storage, name).read_state()
        assert state is not None
        assert state.is_complete
        assert read_results(storage, list(state.trials))[0].keys() == state.trials.keys()
    assert not list(damaged_records(Scope.of(storage, thorough=True)))


def test_what_only_the_sweep_uses_goes_and_the_rest_stays(storage: LocalStorage) -> None:
    trials, warmups = set(storage.names("trials")), set(storage.names("warmups"))
    archive_trial(storage, key := next(iter(trials & plan_deletion(storage, "wide").trials)))
    deleted = delete_sweep(storage, "wide")
    assert (len(deleted.trials), len(deleted.kept_trials), len(deleted.warmups), len(deleted.kept_warmups)) == (7, 7, 1, 1)
    assert trials - set(storage.names("trials")) == deleted.trials
    assert warmups - set(storage.names("warmups")) == deleted.warmups
    assert storage.names("trials/.aside") == []
    assert any(key in path for path in deleted.files["archived trials"])
    assert storage.names("sweeps") == ["tiny"]
    assert_whole(storage)
    delete_sweep(storage, "tiny")
    assert not [path for path in storage.files("") if path.startswith(("trials", "warmups", "sweeps"))]


def test_the_plan_names_the_files_and_bytes_that_go(storage: LocalStorage) -> None:
    before = storage.files("")
    plan = plan_deletion(storage, "wide")
    assert storage.files("") == before
    delete_sweep(storage, "wide")
    gone = before.keys() - storage.files("").keys()
    assert storage.files("").keys() <= before.keys()
    assert {path for files in plan.files.values() for path in files} == gone
    assert plan.sizes()["trials"] == (21, sum(before[path].bytes for path in gone if path.startswith("trials/")))


def test_a_trial_that_a_setting_of_another_sweep_names_stays(storage: LocalStorage) -> None:
    key = next(iter(plan_deletion(storage, "wide").trials))
    spec = storage.read_json("sweeps/tiny/spec.json")
    storage.write_json("sweeps/tiny/spec.json", spec | {"random": {"layers": key}})
    assert key in plan_deletion(storage, "wide").kept_trials


def test_a_deletion_that_is_killed_after_any_write_leaves_whole_sweeps_and_is_completed(
    made: LocalStorage, tmp_path: Path
) -> None:
    for number in count(1):
        storage = LocalStorage(str(shutil.copytree(made.root, tmp_path / str(number))))
        try:
            delete_sweep(MortalStorage(storage.root, Fuse(at=number)), "wide")
            break
        except KilledError:
            assert_whole(storage)
        if storage.exists(SweepFolder(storage, "wide").file(DELETING)):
            if "wide" not in sweep_names(storage):
                with pytest.raises(UserError, match=r"deletion of sweep 'wide' was interrupted; `drive-sweep delete wide"):
                    open_sweep(storage, "wide")
            delete_sweep(storage, "wide")
        assert sweep_names(storage) == ["tiny"]
        assert_whole(storage)
        assert (len(storage.names("trials")), len(storage.names("warmups"))) == (7, 1)
    assert number > 25


def test_what_another_sweep_has_come_to_use_meanwhile_stays(storage: LocalStorage, tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        delete_sweep(MortalStorage(storage.root, Fuse(at=5)), "wide")
    assert "wide" not in sweep_names(storage)
    recorded_sweep(storage, tmp_path, "third", WIDER)
    assert not delete_sweep(storage, "wide").trials
    assert sweep_names(storage) == ["third", "tiny"]
    assert_whole(storage)


def test_running_the_sweep_again_calls_its_interrupted_deletion_off(storage: LocalStorage, tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        delete_sweep(MortalStorage(storage.root, Fuse(at=5)), "wide")
    plan = recorded_sweep(storage, tmp_path, "wide", WIDER)
    write_sweep_files(SweepFolder(storage, "wide"), plan, "")
    assert not storage.exists(SweepFolder(storage, "wide").file(DELETING))
    assert_whole(storage)


def test_a_running_sweep_is_not_deleted(storage: LocalStorage) -> None:
    before = storage.files("").keys()
    with SweepFolder(storage, "wide").driver_lease(), pytest.raises(SetupError, match="sweep 'wide' is being run by"):
        delete_sweep(storage, "wide")
    assert storage.files("").keys() - {"sweeps/wide/driver.lock"} == before


def test_nothing_is_deleted_while_another_sweep_may_take_trials_up(storage: LocalStorage) -> None:
    other = SweepFolder(storage, "tiny")
    state = other.read_state()
    assert state is not None
    with other.driver_lease():
        with pytest.raises(SetupError, match="sweep 'tiny' is starting, and may take up trials of 'wide'"):
            delete_sweep(storage, "wide")
        state.driver = this_driver()
        other.write_state(state)  # all its trials are known now
        assert len(plan_deletion(storage, "wide").trials) == 7
        state.search = {"all": "is looking around"}
        other.write_state(state)
        with pytest.raises(SetupError, match="sweep 'tiny' is a search that is running"):
            delete_sweep(storage, "wide")


def test_a_damaged_list_of_trials_of_another_sweep_stops_it(storage: LocalStorage) -> None:
    storage.write("sweeps/tiny/trials.json", b"{")
    with pytest.raises(SetupError, match=r"not known which trials of 'wide' sweep 'tiny' uses; `drive-sweep resume tiny"):
        delete_sweep(storage, "wide")


def test_an_unknown_sweep_is_named_with_those_that_exist(storage: LocalStorage) -> None:
    with pytest.raises(UserError, match=r"no sweep 'none' in storage .*sweeps there: tiny, wide"):
        delete_sweep(storage, "none")
