"""Measures how fast the networks of finished trials run, and keeps the result with each trial."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.command_line import command
from orchestrator.errors import SetupError, UserError
from orchestrator.export.trial_model import trial_model
from orchestrator.spec.loader import spec_from_resolved
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.state.used_keys import named_keys
from orchestrator.storage.base import Storage
from orchestrator.storage.layout import trial_file
from trainables.records.file_names import LATENCY, MODEL, RESULT
from trainables.records.latency_record import decode_latency, encode_latency
from trainables.records.metrics import DamagedRecordError
from trainables.records.result_record import decode_result


def sweeps_with(storage: Storage, key: str) -> list[SweepFolder]:
    """The sweeps whose records name a trial."""
    return [folder for name in storage.names("sweeps") if key in named_keys(folder := SweepFolder(storage, name))]


def measure_trial(
    storage: Storage, key: str, *, batches: Sequence[int], threads: int, device: str, half: bool = False
) -> list[dict[str, Any]]:
    """The measurements, one for each batch size (trainables/export/measured_latency.py), which the trial keeps.

    Raises:
        UserError: there is no such trial, or it has not finished.
        SetupError: its files are damaged.
    """
    from trainables.export.measured_latency import measure
    from trainables.export.sparse_model import load_masks
    from trainables.export.variants import variants

    result, folders = _result(storage, key), sweeps_with(storage, key)
    if not folders:
        raise UserError(f"no sweep in storage {storage.root} has a trial {key}", code="trial-unknown")
    spec = spec_from_resolved(storage.read_json(folders[0].file("spec.json")))
    if result["kept_weights"] == result["prunable_weights"]:
        raise UserError(
            f"trial {key} must have pruned weights to compare with the dense network, got a dense trial",
            "give the key of another one",
            code="trial-dense",
        )
    model = trial_model(storage, spec, key, result)
    measured = measure(
        variants(model, load_masks(storage.read(trial_file(key, MODEL)) or b""), device=device, half=half),
        model.card.image_shape,
        model.memory_format,
        batches=batches,
        threads=threads,
    )
    storage.write(trial_file(key, LATENCY), encode_latency(key, [*_earlier(storage, key), *measured]))
    return measured


def _result(storage: Storage, key: str) -> dict[str, Any]:
    content = storage.read(trial_file(key, RESULT))
    if content is None:
        raise UserError(
            f"no finished trial in storage {storage.root} has the key {key}",
            f"`{command('status', 'NAME')}` lists those of a sweep; --storage names another storage",
            code="trial-unknown",
        )
    try:
        return decode_result(content, key)
    except DamagedRecordError as error:
        raise SetupError(
            f"{RESULT} of trial {key} {error}", f"`{command('doctor', '--fix')}` mends it", code="trial-damaged"
        ) from error


def _earlier(storage: Storage, key: str) -> list[dict[str, Any]]:
    """The measurements so far; a damaged file is left to `doctor` and none are added to it."""
    try:
        return decode_latency(storage.read(trial_file(key, LATENCY)), key)
    except DamagedRecordError as error:
        raise SetupError(
            f"{LATENCY} of trial {key} {error}", f"`{command('doctor', '--fix')}` sets it aside", code="record-damaged"
        ) from error
