"""How each sweep of a storage stands."""

from __future__ import annotations

import os
from pathlib import Path

from orchestrator.housekeeping.listing import sweep_summaries
from orchestrator.state.driver_liveness import this_driver
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.state.sweep_state import SweepState, TrialStatus
from orchestrator.storage.local import LocalStorage

STATES = {
    "finished": ["finished", "finished"],
    "failed": ["finished", "failed"],
    "unfinished": ["waiting", "failed"],
    "running": ["running", "waiting"],
}


def put(storage: LocalStorage, name: str, states: list[str], changed: float) -> None:
    folder, state = SweepFolder(storage, name), SweepState(sweep=name)
    for number, one in enumerate(states):
        state.trials[str(number)] = TrialStatus(key=str(number), name=f"w{number}", state=one, config={})
    state.driver = this_driver() if name == "running" else {}
    storage.write_json(folder.file("trials.json"), {"trials": []})
    folder.write_state(state)
    os.utime(storage.path(folder.file("state.json")), (changed, changed))


def test_sweeps_are_listed_with_their_state_the_last_changed_first(tmp_path: Path) -> None:
    storage = LocalStorage(str(tmp_path))
    assert sweep_summaries(storage) == []
    for number, (name, states) in enumerate(STATES.items()):
        put(storage, name, states, 1000.0 + number)
    storage.write("sweeps/half/deleting.json", b"{}")
    storage.write("sweeps/unknown/trials.json", b"{}")
    storage.write("sweeps/unknown/state.json", b"damaged")
    storage.write("sweeps/no-sweep/driver.lock", b"")
    listed = sweep_summaries(storage)
    assert [one.name for one in listed[2:]] == list(reversed(STATES))
    assert {one.name: one.state for one in listed} == {name: name for name in (*STATES, "unknown")} | {"half": "half deleted"}
    assert [(one.total, one.finished, one.failed) for one in listed[2:]] == [(2, 0, 0), (2, 0, 1), (2, 1, 1), (2, 2, 0)]
    assert [one.changed for one in listed[2:]] == [1003.0, 1002.0, 1001.0, 1000.0]


def test_a_search_that_goes_on_is_not_settled(tmp_path: Path) -> None:
    storage = LocalStorage(str(tmp_path))
    folder, state = SweepFolder(storage, "s"), SweepState(sweep="s", settled=False)
    state.trials["a"] = TrialStatus(key="a", name="a", state="stopped", config={}, rung=2)
    storage.write_json(folder.file("trials.json"), {"trials": []})
    folder.write_state(state)
    (one,) = sweep_summaries(storage)
    assert (one.state, one.stopped_early, one.settled) == ("unfinished", 1, False)
    state.settled = True
    folder.write_state(state)
    assert sweep_summaries(storage)[0].state == "finished"
