"""The part of a report on a search: sentences, tables, JSON, HTML, and what the rest of the report takes from it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.execution.sweep_files import write_sweep_files
from orchestrator.page.page import html_page
from orchestrator.reporting.report import Report, make_report
from orchestrator.reporting.sweep_results import sweep_results
from orchestrator.search.decision_file import DecisionFile
from orchestrator.search.decisions import Decision
from orchestrator.search.plans import plan_sweep
from orchestrator.spec.grid import base_config, configured
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.state.sweep_state import SweepState, TrialStatus
from orchestrator.storage.factory import open_storage
from tests.support.search_decisions import EASY, SEARCH, configuration, decisions, early_stop, result, trial
from tests.support.sweep_files import load_text
from tests.support.trials import write_result
from trainables.config.keys import canonical, complete

VALUES = {"e0": (0, 1, 0, 0.8), "e1": (0, 10, 0, 0.7), "e3": (0, 1, 1, 0.9)}  # warm-up, iterations, seed, accuracy


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def report_of(lines: Sequence[Decision], text: str = SEARCH) -> tuple[SweepFolder, SweepState, Report]:
    """The report of a search with these decisions; e0, e1 and e3 are finished, e2 was stopped early."""
    spec, storage = load_text(text), open_storage("runs", create=True)
    folder = SweepFolder(storage, spec.name)
    write_sweep_files(folder, plan_sweep(spec, storage), text)
    DecisionFile(storage, spec.name).write(lines)
    state = SweepState(sweep=spec.name, search={EASY: "better", "s0.98": "exploring"}, settled=False)
    easy = configured(base_config(spec, spec.method[0]), {"sparsity": 0.9})
    for key, (warmup, iterations, seed, accuracy) in VALUES.items():
        config = replace(easy, warmup_epochs=warmup, prune_iterations=iterations, seed=seed)
        metrics = {"val/accuracy": accuracy, "test/accuracy": accuracy, "cost/search_seconds": 1.0}
        result_of = {"config": canonical(config), "metrics": metrics, "model_sha256": "0" * 64, "fingerprints": []}
        write_result(storage, key, result_of)
        state.trials[key] = TrialStatus(key=key, name=f"name-{key}", state="finished", config=complete(config))
    stopped = complete(replace(easy, warmup_epochs=1, prune_iterations=1))
    metrics = {"val/accuracy": 0.2, "test/accuracy": 0.2}
    state.trials["e2"] = TrialStatus(key="e2", name="name-e2", state="stopped", config=stopped, metrics=metrics, rung=1)
    return folder, state, make_report(folder, state)


@pytest.fixture
def reported() -> tuple[SweepFolder, SweepState, Report]:
    return report_of(decisions(load_text(SEARCH)))


def test_each_group_has_its_outcome_in_a_sentence(reported: tuple[Any, Any, Report]) -> None:
    section = reported[2].search
    assert section is not None
    assert section.lines()[:2] == [
        "s0.9: recommended is warmup_epochs 0, prune_iterations 1 with val/accuracy 0.85 (better): "
        "better than every other configuration at 95%, with 2 seeds",
        "  3 configurations tried, 1 of them stopped early, 0 ruled out otherwise; 17 epochs",
    ]
    assert section.lines()[2].startswith("s0.98: exploring")
    assert section.lines()[-1] == "epochs of the search: 22, 33.3% of the full grid's 66"


def test_stopped_trials_stand_apart_and_are_in_no_mean(
    reported: tuple[Any, Any, Report], capsys: pytest.CaptureFixture[str]
) -> None:
    report = reported[2]
    report.print()
    printed = capsys.readouterr().out
    table, _, apart = printed.partition("stopped early, and so in no mean")
    assert "name-e2" not in table
    (row,) = (line.split() for line in apart.splitlines() if "name-e2" in line)
    assert row == ["name-e2", "s0.9", "1", "0.2000"]
    means = {one.config.prune_iterations: one.validation and one.validation.mean for one in report.settings}
    assert means == {1: pytest.approx(0.85), 10: 0.7}
    assert "3 trials finished, 1 stopped early" in report.summary()


def test_recommended_configuration_has_the_star() -> None:
    lines = decisions(load_text(SEARCH))
    values = {"warmup_epochs": 0, "prune_iterations": 10}
    lines[-1] = replace(lines[-1], configuration=1, values=values)  # though its mean is lower
    report = report_of(lines)[2]
    assert [one.best for one in report.settings] == [one.config.prune_iterations == 10 for one in report.settings]
    assert report.recommendations[0].best.values == values
    assert "* recommended;" in report.notes()[0]


def test_a_stopped_trial_that_was_taken_on_is_finished() -> None:
    lines = decisions(load_text(SEARCH))
    section = report_of([*lines[:-1], *early_stop(EASY, 1, "e1"), lines[-1]])[2].search
    assert section is not None
    assert [row[0] for block in section.blocks() for row in block.rows] == ["name-e2"]
    assert section.stopped == 1


def test_json_and_html_have_the_search(reported: tuple[Any, Any, Report]) -> None:
    report = reported[2]
    answer = json.loads(json.dumps(report.to_json()))["search"]
    easy = answer["groups"][0]
    assert (easy["outcome"], easy["best"]["values"]) == ("better", {"warmup_epochs": 0, "prune_iterations": 1})
    assert [one["key"] for one in easy["stopped_early"]] == ["e2"]
    assert (answer["epochs"], answer["grid_epochs"], easy["pareto_front"]) == (22, 66, None)
    page = html_page(sweep_results(reported[0], reported[1]), drawn=[])
    assert "<h2>The search</h2>" in page
    assert "<td>name-e2</td>" in page


def test_other_sweeps_have_no_section(reported: tuple[SweepFolder, SweepState, Any]) -> None:
    folder, state, _ = reported
    state = replace(state, search={})
    report = make_report(folder, state)
    assert report.search is None
    assert report.to_json()["search"] is None
    assert "The search" not in html_page(sweep_results(folder, state), drawn=[])


def test_several_objectives_have_their_front() -> None:
    staged = "seeds: {first: 1, most: 2}\nearly_stopping: {name: asha}\n"
    objectives = "objective: {val/accuracy: max, model/bytes: min}\nstrategy: {name: nsga2, configurations: 4}\n"
    text = SEARCH.replace(staged, f"{objectives}seeds: {{first: 2, most: 2}}\n")
    lines = [decisions(load_text(text))[0]]
    points = [(0, 1, 0.7, 10.0), (1, 10, 0.9, 30.0), (0, 10, 0.8, 40.0), (1, 1, 1.0, 1.0)]
    for number, (warmup, iterations, accuracy, size) in enumerate(points):
        lines.append(configuration(EASY, number, warmup, iterations))
        for seed in (0, 1) if number < 3 else (0,):  # the last, which would be best, has not run all its first seeds
            key = f"k{number}-{seed}"
            lines.append(trial(EASY, number, key, seed=seed))
            line = result(EASY, number, key, accuracy, seed=seed)
            lines.append(replace(line, values={"val/accuracy": accuracy, "model/bytes": size}))
    section = report_of(lines, text)[2].search
    assert section is not None
    (front,) = section.blocks()
    assert front.title == "Pareto front of s0.9"
    assert front.rows == [("1", "10", "0.9", "30"), ("0", "1", "0.7", "10")]
    assert section.to_json()["groups"][0]["pareto_front"] == [0, 1]
    assert report_of(lines, text)[2].recommendations == []
