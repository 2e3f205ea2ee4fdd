"""Sweeps with real plans and records whose trials were not computed: result files and snapshots have small made-up contents."""

from __future__ import annotations

from pathlib import Path

from orchestrator.execution.driver import initial_state, make_queue
from orchestrator.execution.sweep_files import write_sweep_files
from orchestrator.planning.plan import Plan, make_plan
from orchestrator.spec.loader import load_spec
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.base import Storage
from orchestrator.storage.layout import trial_file
from tests.support.cli import tiny_sweep
from tests.support.trials import write_result
from trainables.records.file_names import METRICS, MODEL

METRIC_VALUES = {"val/accuracy": 0.75, "test/accuracy": 0.5}


def recorded_sweep(storage: Storage, scratch: Path, name: str, *settings: str, unfinished: int = 0) -> Plan:
    """The plan of a sweep in the storage whose trials have finished, all but the last ones.

    Args:
        scratch: folder for the sweep file.
        settings: KEY=VALUE for tests.support.cli.TINY.
    """
    file = tiny_sweep(scratch)
    spec = load_spec(str(file), [f"name={name}", *settings])
    plan = make_plan(spec, storage, hash_data=True)
    for trial in plan.trials[: len(plan.trials) - unfinished]:
        if trial.result is None:
            storage.write(trial_file(trial.key, METRICS), b"")
            storage.write(trial_file(trial.key, MODEL), b"model")
            write_result(storage, trial.key, {"metrics": METRIC_VALUES, "model_sha256": "0" * 64, "config": {}})
    for warmup in plan.warmups():
        storage.write(f"warmups/{warmup.key}/epoch-{warmup.lengths[-1]:04d}.f.safetensors", b"weights")
    plan = make_plan(spec, storage, hash_data=True)
    folder = SweepFolder(storage, name)
    write_sweep_files(folder, plan, file.read_text().replace("name: tiny", f"name: {name}"))
    folder.write_state(initial_state(plan, None, make_queue(plan, storage, lambda key: False)))
    folder.log("made up")
    return plan
