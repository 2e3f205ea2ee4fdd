"""A storage with the records of a sweep whose trials have finished with given metrics."""

from __future__ import annotations

from pathlib import Path

from orchestrator.spec.loader import resolved
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.state.sweep_state import SweepState
from orchestrator.storage.layout import trial_file
from orchestrator.storage.local import LocalStorage
from tests.support.finished_sweeps import Metrics, finished_sweep
from trainables.records.file_names import RESULT
from trainables.records.result_record import encode_result

FIRST_END_MS = 1_700_000_000_000  # when the first trial finished; each other one a second after the one before


def stored_sweep(root: Path, text: str, metrics: Metrics) -> tuple[SweepFolder, SweepState]:
    """The folder and the state of a sweep; `metrics` are those of a trial, None if it has not finished."""
    spec, state = finished_sweep(text, metrics)
    storage = LocalStorage(str(root))
    folder = SweepFolder(storage, spec.name)
    storage.write(folder.file("sweep.yaml"), text.encode())
    storage.write_json(folder.file("spec.json"), resolved(spec))
    for number, trial in enumerate(one for one in state.trials.values() if one.state == "finished"):
        end_ms = FIRST_END_MS + 1000 * number
        result = {
            "config": trial.config,
            "metrics": trial.metrics,
            "model_sha256": trial.key,
            "fingerprints": [],
            "layers": [],
            "started_ms": end_ms - 900,
            "finished_ms": end_ms,
        }
        storage.write(trial_file(trial.key, RESULT), encode_result(trial.key, result, b"", b"")[1])
    folder.write_state(state)
    return folder, state
