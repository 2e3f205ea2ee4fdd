"""Reads the results of finished trials; a damaged record counts as missing, and is reported with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.state.sweep_state import SweepState
from orchestrator.storage.base import Storage
from orchestrator.storage.layout import trial_file
from trainables.custom.references import sha256
from trainables.records.file_names import METRICS, MODEL, RESULT
from trainables.records.metrics import DamagedRecordError
from trainables.records.result_record import MODEL_FILE, decode_result, metrics_damage

Results = dict[str, dict[str, Any]]
Damage = dict[str, str]  # trial key -> the damaged file and what is wrong with it


def read_results(storage: Storage, keys: Sequence[str]) -> tuple[Results, Damage]:
    """The results by trial key, and the damage; a trial without a result is in neither."""
    results: Results = {}
    damage: Damage = {}
    for key, content in zip(keys, storage.read_all([trial_file(key, RESULT) for key in keys]), strict=True):
        try:
            if content is not None:
                results[key] = decode_result(content, key)
        except DamagedRecordError as error:
            damage[key] = _line(key, RESULT, str(error))
    return results, damage


def recorded_state(storage: Storage, state: SweepState) -> tuple[SweepState, Results, Damage]:
    """The state with the metrics of the records; a trial whose record is damaged does not count as finished."""
    results, damage = read_results(storage, [key for key, status in state.trials.items() if status.state == "finished"])
    trials = dict(state.trials)
    for key, result in results.items():
        trials[key] = replace(trials[key], metrics=result["metrics"], model_sha256=result["model_sha256"])
    for key in damage:
        trials[key] = replace(trials[key], state="waiting", metrics={}, model_sha256=None)
    return replace(state, trials=trials), results, damage


def damaged_metrics(storage: Storage, results: Mapping[str, Mapping[str, Any]]) -> Damage:
    """The finished trials whose metrics.jsonl does not match their result."""
    contents = storage.read_all([trial_file(key, METRICS) for key in results])
    problems = {
        key: metrics_damage(result, content or b"") for (key, result), content in zip(results.items(), contents, strict=True)
    }
    return {key: _line(key, METRICS, problem) for key, problem in problems.items() if problem}


def damaged_files(storage: Storage, results: Mapping[str, Mapping[str, Any]]) -> Damage:
    """The finished trials whose metrics or model do not match their result; a removed model is no damage.

    Models are hashed only in a folder, since from an object store each would have to be fetched.
    """
    damage = damaged_metrics(storage, results)
    if storage.folder is not None:
        for key, result in results.items():
            if key not in damage and storage.exists(trial_file(key, MODEL)):
                damage |= {key: problem} if (problem := damaged_model(storage, key, result)) else {}
    return damage


def damaged_model(storage: Storage, key: str, result: Mapping[str, Any]) -> str:
    """What is wrong with a finished trial's model file; empty if it is undamaged."""
    content = storage.read(trial_file(key, MODEL))
    if content is None:
        return _line(key, MODEL, "is gone")
    if MODEL_FILE in result:
        return "" if sha256(content) == result[MODEL_FILE] else _line(key, MODEL, "does not match the SHA-256 in result.json")
    from trainables.export.sparse_model import stored_sha256

    try:
        same = stored_sha256(content) == result["model_sha256"]
    except ValueError as error:
        return _line(key, MODEL, f"cannot be read: {error}")
    return "" if same else _line(key, MODEL, "is not the model of result.json")


def _line(key: str, file: str, problem: str) -> str:
    return f"{trial_file(key, file)} {problem}"
