"""Which sweep uses what, and who is refused because of it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from orchestrator.errors import SetupError
from orchestrator.housekeeping import deletion
from orchestrator.housekeeping.deletion import Deletion, delete_sweep
from orchestrator.state.driver_liveness import this_driver
from orchestrator.state.sweep_folder import DELETING, SweepFolder
from orchestrator.state.used_keys import held_sweeps, named_keys, require_not_being_deleted, require_not_in_use
from orchestrator.storage.base import Storage
from tests.support.recorded_sweeps import recorded_sweep
from tests.support.trials import new_storage

WIDER = "search.seed=[0, 1]"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    storage = new_storage(tmp_path / "runs")
    recorded_sweep(storage, tmp_path, "tiny")
    recorded_sweep(storage, tmp_path, "wide", WIDER)
    return storage


def test_used_keys_are_those_of_trials_and_warmups(storage: Storage) -> None:
    tiny, wide = (named_keys(SweepFolder(storage, name)) for name in ("tiny", "wide"))
    assert tiny < wide == {*storage.names("trials"), *storage.names("warmups")}


def test_a_sweep_that_runs_on_another_host_is_held(storage: Storage) -> None:
    assert held_sweeps(storage) == {}
    elsewhere = this_driver() | {"host": "elsewhere", "process_table": "another", "owner": "other"}
    storage.write_json("sweeps/tiny/driver.json", elsewhere)
    assert "on elsewhere" in held_sweeps(storage)["tiny"]
    storage.write_json("sweeps/tiny/driver.json", elsewhere | {"heartbeat": time.time() - 31})
    assert held_sweeps(storage) == {}


def test_a_trial_of_a_running_sweep_is_not_computed_beside_it(storage: Storage) -> None:
    (only_wide, *_) = sorted(set(storage.names("trials")) - named_keys(SweepFolder(storage, "tiny")))
    with SweepFolder(storage, "tiny").driver_lease():
        require_not_in_use(storage, [only_wide])
        require_not_in_use(storage, named_keys(SweepFolder(storage, "tiny")), besides="tiny")
        require_not_in_use(storage, [])
        with pytest.raises(SetupError, match="is one of sweep 'tiny', which is being run by another process"):
            require_not_in_use(storage, named_keys(SweepFolder(storage, "wide")))


def test_a_sweep_that_starts_during_a_deletion_is_seen_or_sees_it(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever is first: the deletion has looked for other sweeps before this one took its lease, or not."""
    third, looks = SweepFolder(storage, "third"), list[int]()
    keys = named_keys(SweepFolder(storage, "wide"))
    look = deletion.plan_deletion

    def look_then_start(storage: Storage, name: str) -> Deletion:
        plan = look(storage, name)
        looks.append(len(looks))
        if looks == [0, 1, 2]:  # the last look: what follows is the removal
            with third.driver_lease(), pytest.raises(SetupError, match="sweep 'wide' is being deleted"):
                require_not_being_deleted(third, keys)
        return plan

    monkeypatch.setattr(deletion, "plan_deletion", look_then_start)
    delete_sweep(storage, "wide")
    assert looks == [0, 1, 2]
    assert len(storage.names("trials")) == 7

    monkeypatch.setattr(deletion, "plan_deletion", look)
    recorded_sweep(storage, tmp_path, "wide", WIDER)
    announce = deletion._announce

    def start_then_announce(folder: SweepFolder, plan: Deletion) -> None:
        started.__enter__()
        require_not_being_deleted(third, keys)
        announce(folder, plan)

    started = third.driver_lease()
    monkeypatch.setattr(deletion, "_announce", start_then_announce)
    with pytest.raises(SetupError, match="sweep 'third' is starting"):
        delete_sweep(storage, "wide")
    assert len(storage.names("trials")) == 14
    assert not storage.exists(SweepFolder(storage, "wide").file(DELETING))
    started.__exit__(None, None, None)
