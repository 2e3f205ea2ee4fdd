"""Sweeps are listed, renamed and deleted in every storage."""

from __future__ import annotations

from pathlib import Path

from orchestrator.housekeeping.deletion import delete_sweep
from orchestrator.housekeeping.listing import sweep_summaries
from orchestrator.housekeeping.renaming import rename_sweep
from orchestrator.state.driver_lease import LeaseTimes
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.state.trial_results import read_results
from orchestrator.storage.base import Storage
from tests.support.recorded_sweeps import recorded_sweep

TIMES = LeaseTimes(settle_s=0.3, renew_interval_s=0.3, release_timeout_s=10.0)


def test_every_storage_lists_renames_and_deletes(any_storage: Storage, tmp_path: Path) -> None:
    recorded_sweep(any_storage, tmp_path, "tiny")
    recorded_sweep(any_storage, tmp_path, "wide", "search.seed=[0, 1]")
    rename_sweep(any_storage, "wide", "large", TIMES)
    listed = {one.name: (one.state, one.finished, one.total) for one in sweep_summaries(any_storage)}
    assert listed == {"tiny": ("finished", 7, 7), "large": ("finished", 14, 14)}
    delete_sweep(any_storage, "large", TIMES)
    assert any_storage.names("sweeps") == ["tiny"]
    assert (len(any_storage.names("trials")), len(any_storage.names("warmups"))) == (7, 1)
    state = SweepFolder(any_storage, "tiny").read_state()
    assert state is not None
    assert len(read_results(any_storage, list(state.trials))[0]) == 7
