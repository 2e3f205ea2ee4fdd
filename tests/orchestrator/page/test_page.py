"""The page of a sweep as text: what it says, that it escapes, and the files beside it."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from orchestrator.commands.output_files import write_output, write_output_folder
from orchestrator.errors import UserError
from orchestrator.figures import table
from orchestrator.figures.figure import Figure, chart
from orchestrator.figures.table import FigureKind
from orchestrator.page.artifacts import report_files, write_report
from orchestrator.page.page import html_page
from orchestrator.page.rows import trial_rows
from orchestrator.page.trials import failures_section, trials_section
from orchestrator.recommendation.sentences import sentence
from orchestrator.reporting.sweep_results import SweepResults
from orchestrator.state.sweep_state import SweepState
from tests.support.cli import drive_sweep

SCRIPT = "</script><script>alert('x')</script><img src=x onerror=alert(1)>"


def toy_figures(results: SweepResults) -> list[Figure]:
    spec = chart(
        [{"trials": len(results.state.trials)}], mark="bar", encoding={"x": {"field": "trials", "type": "quantitative"}}
    )
    return [Figure(name="toy", title="a toy", description="one bar", spec=spec)]


def without_library(page: str) -> str:
    """The page without the library that draws."""
    return re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)


def test_sentences_come_first(two_methods: SweepResults) -> None:
    page = html_page(two_methods, drawn=[])
    places = [page.index(sentence(one).replace(" %", "&nbsp;%")) for one in two_methods.recommendations]
    assert places == sorted(places)
    assert places[-1] < page.index("<nav") < page.index('<section id="settings"')
    assert "37 of 39 trials finished, 1 failed" in page
    assert "Results up to 2026-09-21 " in page


def test_page_changes_only_with_the_results(two_methods: SweepResults) -> None:
    assert html_page(two_methods, drawn=[]) == html_page(two_methods, drawn=[])


def test_whatever_comes_from_a_sweep_is_escaped(two_methods: SweepResults) -> None:
    (key, trial), *_ = two_methods.state.trials.items()
    trials = {**two_methods.state.trials, key: replace(trial, name=SCRIPT, error=SCRIPT, state="failed")}
    settings = tuple(replace(one, varying={SCRIPT: SCRIPT}) for one in two_methods.settings)
    page = html_page(replace(two_methods, state=replace(two_methods.state, trials=trials), settings=settings))
    assert SCRIPT not in page
    assert "<img src=x" not in page
    assert page.count("</script>") == 3  # the figures, the library and the page's own


def test_failed_trials_show_the_end_of_their_error(two_methods: SweepResults) -> None:
    content = failures_section(two_methods).content
    assert "drive-w00-i001-s0.9-r0" in content
    assert "File &quot;x.py&quot;, line 1, in f\nValueError: the loss is not finite" in content


def test_trials_lead_to_their_runs(two_methods: SweepResults) -> None:
    assert "<a href" not in trials_section(two_methods).content  # it has no runs
    state = replace(two_methods.state, experiment_id="7")
    content = trials_section(replace(two_methods, state=state)).content
    assert f'href="http://127.0.0.1:5000/#/experiments/7/runs/{2:032x}?' in content
    assert "They open while `drive-sweep ui two` runs." in content
    assert two_methods.spec is not None
    server = two_methods.spec.tracking.model_copy(update={"uri": "https://mlflow.example"})
    spec = two_methods.spec.model_copy(update={"tracking": server})
    content = trials_section(replace(two_methods, state=state, spec=spec)).content
    assert f'href="https://mlflow.example/#/experiments/7/runs/{2:032x}?' in content
    assert "drive-sweep ui" not in content


def test_new_figure_is_on_the_page_and_among_the_files(two_methods: SweepResults, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "FIGURES", (FigureKind(title="Toys", caption="a caption", draw=toy_figures),))
    files = report_files(two_methods)
    assert {name for name in files if name.startswith("figures/")} == {"figures/toy.png", "figures/toy.svg"}
    page = files["report.html"].decode()
    assert "<h2>Toys</h2>" in page
    assert '<figure data-name="toy">' in page
    specs = json.loads(re.search(r'id="figures">(.*?)</script>', page)[1])  # type: ignore[index]
    assert specs["toy"]["data"]["values"] == [{"trials": 39}]
    assert {"report.html", "toy.png"} <= write_report(two_methods.folder, two_methods.state).keys()


def test_many_figures_of_a_kind_are_chosen_from(two_methods: SweepResults) -> None:
    figures = [replace(toy_figures(two_methods)[0], name=f"toy-{number}") for number in range(5)]
    page = html_page(two_methods, drawn=[(FigureKind(title="Toys", caption="", draw=toy_figures), figures)])
    assert re.findall(r'<figure data-name="(toy-\d)"( hidden)?>', page) == [
        (f"toy-{number}", " hidden" if number else "") for number in range(5)
    ]
    assert page.count("<option") == 5


def test_csv_and_parquet_hold_every_trial(two_methods: SweepResults, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "FIGURES", ())
    files, rows = report_files(two_methods), trial_rows(two_methods)
    read = list(csv.DictReader(io.StringIO(files["trials.csv"].decode())))
    parquet = pyarrow.parquet.read_table(io.BytesIO(files["trials.parquet"])).to_pylist()
    assert len(rows) == len(read) == len(parquet) == 39
    for row, text, stored in zip(rows, read, parquet, strict=True):
        assert list(row) == list(text) == list(stored)
        assert {name: "" if value is None else str(value) for name, value in row.items()} == text
        assert row.keys() == {name for name, value in stored.items() if value == row[name] or str(row[name]) == value}
    (failed, waiting), finished = rows[:2], rows[2]
    assert (failed["error"], failed["val/accuracy"], waiting["state"]) == (
        "ValueError: the loss is not finite",
        None,
        "waiting",
    )
    assert finished["config.warmup_epochs"] == 0
    assert finished["test/accuracy"] == two_methods.state.trials[finished["key"]].metrics["test/accuracy"]


def test_there_is_no_report_without_results(two_methods: SweepResults) -> None:
    assert write_report(two_methods.folder, SweepState(sweep="two")) == {}


def test_command_writes_the_page_and_the_folder(two_methods: SweepResults, tmp_path: Path) -> None:
    out, page = tmp_path / "out", tmp_path / "page.html"
    report = ("report", "two", "--storage", two_methods.folder.storage.root)
    run = drive_sweep(*report, "--json", "--out", out, "--html", page)
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert f"wrote {len(names)} files into {out}" in run.stderr
    assert {"report.html", "report.json", "trials.csv", "trials.parquet", "figures/hours.svg", "compare.json"} <= names
    assert page.read_bytes() == (out / "report.html").read_bytes()
    answers: list[Any] = [json.loads(text) for text in (run.stdout, (out / "report.json").read_text())]
    assert answers[0] == answers[1]


def test_files_that_cannot_be_written_are_an_error_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^--html must be a file that can be written, got '.*page.html': No such file"):
        write_output("--html", tmp_path / "gone/page.html", b"")
    with pytest.raises(UserError, match=r"^--out must be a folder that can be written, got '.*out': Not a directory"):
        write_output_folder("--out", tmp_path / "file/out", {"a": b""})
