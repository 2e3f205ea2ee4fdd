"""`latency` on a real sweep: what it keeps, prints and shows in the report, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.commands import latency as command
from orchestrator.errors import SetupError, UserError
from orchestrator.export.measured_trials import measure_trial, sweeps_with
from orchestrator.reporting.report_columns import shown_columns
from orchestrator.reporting.sweep_results import sweep_results
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.layout import trial_file
from tests.support.cli import ask
from tests.support.whole_sweep import copied
from trainables.export import measured_latency
from trainables.records.file_names import LATENCY
from trainables.records.latency_record import decode_latency


@pytest.fixture
def folder(finished: SweepFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepFolder:
    monkeypatch.setattr(measured_latency, "SECONDS", 0.0)
    return copied(finished, tmp_path)


def keys_of(folder: SweepFolder, *, dense: bool) -> list[str]:
    state = folder.read_state()
    assert state is not None
    return [
        key for key, trial in state.trials.items() if trial.state == "finished" and (trial.config["method"] == "dense") is dense
    ]


def measured(folder: SweepFolder, key: str) -> list[dict[str, Any]]:
    return decode_latency(folder.storage.read(trial_file(key, LATENCY)), key)


def test_command_keeps_what_it_prints_and_the_report_shows_it(folder: SweepFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[list[str]] = []
    monkeypatch.setattr(command, "_show_in_mlflow", lambda storage, keys: shown.append(keys))
    first, second, *_ = keys_of(folder, dense=False)
    answer = ask("latency", first, second, "--batch", 2, "--storage", folder.storage.root)
    assert "times as fast as dense" in answer.stdout
    assert answer.stdout.count("than dense:") == 2
    assert shown == [[first, second]]
    assert [one["batch"] for one in measured(folder, first)] == [2]
    answer = ask("latency", first, "--batch", 1, "--batch", 4, "--json", "--storage", folder.storage.root)
    assert json.loads(answer.stdout)[first] == measured(folder, first)[1:]
    assert [one["batch"] for one in measured(folder, first)] == [2, 1, 4]

    state = folder.read_state()
    assert state is not None
    results = sweep_results(folder, state)
    speedups = {key: trial.metrics.get("latency/speedup") for key, trial in results.state.trials.items()}
    one = measured(folder, first)[1]
    assert speedups[first] == one["speedups"][one["fastest"]][0]
    assert sum(value is not None for value in speedups.values()) == 2
    assert "speed-up" in [column.head for column in shown_columns(results.settings)]
    assert "speed-up" not in [column.head for column in shown_columns([one for one in results.settings if one.is_dense])]


def test_what_cannot_be_measured_is_refused(folder: SweepFolder) -> None:
    settings: dict[str, Any] = {"batches": [1], "threads": 1, "device": "cpu"}
    with pytest.raises(UserError, match="no finished trial in storage"):
        measure_trial(folder.storage, "0" * 16, **settings)
    with pytest.raises(UserError, match="must have pruned weights"):
        measure_trial(folder.storage, keys_of(folder, dense=True)[0], **settings)
    key = keys_of(folder, dense=False)[0]
    folder.storage.write(trial_file(key, LATENCY), b"{}")
    with pytest.raises(SetupError, match=r"latency\.json of trial \w+ is damaged"):
        measure_trial(folder.storage, key, **settings)
    assert "must be at least 1" in ask("latency", key, "--batch", 0, "--storage", folder.storage.root, expect=2).stderr
    half = ask("latency", key, "--half", "--storage", folder.storage.root, expect=2)
    assert "--half must stand with --gpu" in half.stderr
    if not torch.cuda.is_available():
        assert "must have a CUDA device" in ask("latency", key, "--gpu", "--storage", folder.storage.root, expect=2).stderr
    assert [one.name for one in sweeps_with(folder.storage, key)] == [folder.name]
