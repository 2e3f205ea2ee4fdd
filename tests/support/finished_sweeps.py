"""The state of a sweep whose trials have finished with given accuracies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from orchestrator.spec.grid import expand
from orchestrator.spec.loader import resolved
from orchestrator.spec.schema import SweepSpec
from orchestrator.spec.trial_names import trial_names
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.state.sweep_state import SweepState, TrialStatus
from orchestrator.storage.layout import trial_file
from orchestrator.storage.local import LocalStorage
from tests.support.sweep_files import load_text
from trainables.config.keys import complete, trial_key
from trainables.config.trial import TrialConfig
from trainables.records.file_names import RESULT
from trainables.records.result_record import encode_result

FIRST_END_MS = 1_700_000_000_000  # when the first trial finished; each other one a second after the one before
Metrics = Callable[[TrialConfig], Mapping[str, float] | None]


def finished_sweep(text: str, metrics: Metrics) -> tuple[SweepSpec, SweepState]:
    """The sweep of a file's text.

    Args:
        metrics: of a trial; None if it has not finished.
    """
    spec = load_text(text)
    state, configs = SweepState(sweep=spec.name), expand(spec)
    for config, name in zip(configs, trial_names(configs), strict=True):
        key, values = trial_key(config, "none"), metrics(config)
        state.trials[key] = TrialStatus(
            key=key,
            name=name,
            state="waiting" if values is None else "finished",
            config=complete(config),
            metrics=dict(values or {}),
        )
    return spec, state


def finished_on_disk(root: Path, text: str, metrics: Metrics) -> tuple[SweepFolder, SweepState]:
    """Like `finished_sweep`, with the sweep's files and its trials' results in a storage."""
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
