"""What other sweeps compute, as their state and their drivers show it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from orchestrator.state.driver_liveness import this_driver
from orchestrator.state.other_sweeps import LOOK_INTERVAL_S, RECENT_S, OtherSweeps
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.state.sweep_state import SweepState, TrialStatus, WarmupStatus
from orchestrator.storage.local import LocalStorage

ELSEWHERE = {"host": "other", "process_table": "other", "pid": 1, "pid_started": "1"}


def storage_with(root: Path, **drivers: dict[str, Any]) -> LocalStorage:
    """A storage with a sweep for each driver, which runs trial tNAME and warm-up wNAME; trial dNAME waits."""
    storage = LocalStorage(str(root))
    for name, driver in drivers.items():
        state = SweepState(sweep=name, driver=driver)
        for key, what in ((f"t{name}", "running"), (f"d{name}", "waiting")):
            state.trials[key] = TrialStatus(key=key, name=key, state=what, config={})
        state.warmups[f"w{name}"] = WarmupStatus(key=f"w{name}", name="w", state="running", epochs=1)
        SweepFolder(storage, name).write_state(state)
    return storage


def test_only_what_live_drivers_of_other_sweeps_run_counts(tmp_path: Path) -> None:
    storage = storage_with(
        tmp_path,
        here=this_driver(),
        remote=ELSEWHERE | {"heartbeat": time.time()},
        silent=ELSEWHERE | {"heartbeat": time.time() - 60},
        ended={},
        mine=this_driver(),
    )
    others = OtherSweeps(storage=storage, sweep="mine")
    assert [others.computing(key) for key in ("there", "where", "tremote", "wremote")] == ["here", "here", "remote", "remote"]
    assert [others.computing(key) for key in ("dhere", "tsilent", "tended", "tmine", "x")] == [""] * 5


def test_it_looks_again_only_after_a_while_and_at_recent_states_only(tmp_path: Path) -> None:
    storage, now = storage_with(tmp_path, b=this_driver()), [0.0]
    others = OtherSweeps(storage=storage, sweep="a", clock=lambda: now[0])
    assert others.computing("tb") == "b"
    old = time.time() - RECENT_S - 1
    os.utime(tmp_path / "sweeps/b/state.json", (old, old))
    now[0] = LOOK_INTERVAL_S - 1
    assert others.computing("tb") == "b"
    now[0] = LOOK_INTERVAL_S
    assert others.computing("tb") == ""
