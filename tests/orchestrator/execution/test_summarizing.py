"""The summary of a sweep: its figures against those of the trials, and its description."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.execution.descriptions import LONGEST, description
from orchestrator.execution.summarizing import sweep_summary
from orchestrator.recommendation.recommendation import recommendations
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.state.sweep_state import SweepState
from orchestrator.storage.layout import trial_file
from orchestrator.tracking.sweep_summary import SweepSummary
from tests.support.finished_sweeps import FIRST_END_MS, finished_on_disk, finished_sweep
from trainables.config.trial import TrialConfig
from trainables.wording import as_markdown

TEXT = """\
name: chosen
dataset: {name: digits}
model: convnet
method: [drive, random]
search: {warmup_epochs: [0, 2], prune_iterations: [1, 10], sparsity: [0.9, 0.995], seed: [0, 1, 2]}
"""
PLAN = "**The plan:** everything"


def accuracy(config: TrialConfig) -> float:
    """The best is warm-up 2 with 10 iterations; seed 1 is the best seed."""
    if config.is_dense:
        return 0.97 + 0.001 * config.seed
    good = 0.01 * config.warmup_epochs + 0.002 * config.prune_iterations - 0.1 * (config.sparsity > 0.95)
    return 0.9 + good - 0.2 * (config.method == "random") + (0.0, 0.004, 0.001)[config.seed]


def metrics(config: TrialConfig) -> dict[str, float]:
    value = accuracy(config)
    costs = {"cost/total_dense_epochs": 10.0 + config.warmup_epochs + config.seed}
    kept = {"model/sparsity": config.sparsity, "model/theoretical_speedup": 1 / (1 - config.sparsity)}
    return {"val/accuracy": value, "test/accuracy": value - 0.02} | costs | ({} if config.is_dense else kept)


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[SweepFolder, SweepState]:
    monkeypatch.chdir(tmp_path)
    return finished_on_disk(tmp_path / "runs", TEXT, metrics)


def test_figures_are_those_of_the_best_configuration(sweep: tuple[SweepFolder, SweepState]) -> None:
    summary = sweep_summary(*sweep, PLAN)
    shown = summary.metrics or {}
    values = [0.9 + 0.02 + 0.02 + seed for seed in (0.0, 0.004, 0.001)]
    best = {name.rpartition("/")[2]: value for name, value in shown.items() if name.startswith("best/s0.9-drive/")}
    assert best["val_accuracy_of_seeds"] == pytest.approx(statistics.fmean(values))
    assert best["val_accuracy_low"] < best["val_accuracy"] < best["val_accuracy_high"]
    assert best["test_accuracy"] == pytest.approx(statistics.fmean(values) - 0.02)
    assert best["val_accuracy_lost"] == pytest.approx(0.971 - statistics.fmean(values))
    assert (best["warmup_epochs"], best["prune_iterations"], best["seeds"]) == (2, 10, 3)
    assert [best["epochs"], best["sparsity"], best["theoretical_speedup"]] == pytest.approx([13, 0.9, 10])
    assert math.isnan(best["compression_ratio"]), "no trial has it"
    assert {name.split("/")[1] for name in shown} == {"s0.9-drive", "s0.995-drive", "s0.9-random", "s0.995-random"}
    finished = sum(trial.state == "finished" for trial in sweep[1].trials.values())
    assert (summary.step, summary.time_ms) == (finished, FIRST_END_MS + 1000 * (finished - 1))


def test_the_seed_with_the_best_validation_accuracy_is_registered(sweep: tuple[SweepFolder, SweepState]) -> None:
    folder, state = sweep
    recommended = {one.alias: one for one in sweep_summary(folder, state, PLAN).recommended}
    assert list(recommended) == ["best-s90-drive", "best-s99_5-drive", "best-s90-random", "best-s99_5-random"]
    config = state.trials[recommended["best-s99_5-drive"].trial_key].config
    assert (config["warmup_epochs"], config["prune_iterations"], config["seed"]) == (2, 10, 1)
    assert recommended["best-s99_5-drive"].sentence.startswith("drive-s0.995: warm up 2 epochs, prune in 10 iterations")


def test_description_begins_with_the_sentences_and_ends_with_the_plan(sweep: tuple[SweepFolder, SweepState]) -> None:
    text = sweep_summary(*sweep, PLAN).description
    lines = text.splitlines()
    assert [line.partition(":")[0] for line in lines[:4]] == [
        "- drive-s0.9",
        "- drive-s0.995",
        "- random-s0.9",
        "- random-s0.995",
    ]
    assert "- drive-s0.9: settled: " in text
    assert "39 of 39 trials have finished" in text
    assert text.endswith(PLAN)
    assert "`report.html`" in text
    assert "`report.html`" not in sweep_summary(*sweep, PLAN, report=False).description


def test_damaged_trials_do_not_count(sweep: tuple[SweepFolder, SweepState]) -> None:
    folder, state = sweep
    first = next(iter(state.trials))
    folder.storage.write(trial_file(first, "result.json"), b"{")
    summary = sweep_summary(folder, state, PLAN)
    assert summary.step == 38
    assert "38 of 39 trials have finished" in summary.description


def test_a_summary_survives_the_way_to_another_process(sweep: tuple[SweepFolder, SweepState]) -> None:
    summary = replace(sweep_summary(*sweep, PLAN), artifacts={"a/b.png": b"\x00\xff"})
    assert repr(SweepSummary.from_json(json.loads(json.dumps(summary.to_json())))) == repr(
        summary
    )  # NaN is not equal to itself


def test_before_the_first_trial_there_is_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder, state = finished_on_disk(tmp_path / "runs", TEXT, lambda config: None)
    summary = sweep_summary(folder, state, PLAN)
    assert summary.description.startswith("0 of 39 trials have finished.\n\n")
    assert (summary.metrics, summary.recommended, summary.step) == ({}, (), 0)


def test_description_fits_into_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sparsities = [round(0.5 + 0.01 * step, 2) for step in range(45)]
    spec, state = finished_sweep(TEXT.replace("[0.9, 0.995]", str(sparsities)), metrics)
    advice = recommendations(spec, state)
    text = description(state, advice, [], PLAN, report=True)
    assert len(text) <= LONGEST
    assert text.startswith("- drive-s0.5: ")
    assert text.endswith(PLAN)
    shown = sum(line.startswith(("- drive-", "- random-")) for line in text.splitlines())
    assert f"{len(advice) - shown} more groups in the report." in text


def test_markdown_shows_a_text_as_it_is() -> None:
    assert as_markdown('exclude ["head","blocks.0.*"] <b> `x`') == 'exclude \\["head","blocks.0.\\*"\\] \\<b> \\`x\\`'
