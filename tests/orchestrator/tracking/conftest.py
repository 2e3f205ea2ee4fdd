"""A sweep that all tests of tracking look at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestrator.storage.local import LocalStorage
from orchestrator.tracking.background_sync import TrackingThread
from tests.support.mlflow_stores import new_target
from tests.support.tracked_sweep import (
    STATES,
    SUMMARY,
    TRIALS,
    WARMUP,
    TrackedSweep,
    item,
    open_sync,
    run_stage,
    trial_stage,
)
from trainables.config.keys import canonical
from trainables.worker.stage import Stage


@pytest.fixture(scope="session")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrackedSweep]:
    storage = LocalStorage(str(tmp_path_factory.mktemp("storage")))
    target = new_target(tmp_path_factory.mktemp("tracked"))
    thread = TrackingThread(lambda: open_sync(target, storage), interval_s=0.05)
    thread.start()
    thread.reconcile([(each, "waiting") for each, _ in STATES])
    stage = Stage(kind="warmup", key=WARMUP.key, name=WARMUP.name, config=canonical(TRIALS["w02-r0"]), attempt=1, lengths=(2,))
    run_stage(storage, thread, WARMUP, stage)
    for name in TRIALS:
        run_stage(storage, thread, item(name), trial_stage(name))
    thread.close_sweep("FINISHED", SUMMARY)
    assert thread.flush(60), thread.last_error
    yield TrackedSweep(storage, target, thread)
    thread.close()
