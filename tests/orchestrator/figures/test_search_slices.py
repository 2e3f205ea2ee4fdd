"""What a search has tried, over each axis: every configuration with results, and which one is recommended."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.figures.search_slices import search_slices
from orchestrator.page.page import html_page
from orchestrator.reporting.sweep_results import sweep_results
from tests.orchestrator.reporting.test_search_section import report_of
from tests.support.search_decisions import SEARCH, decisions
from tests.support.sweep_files import load_text


def test_each_axis_has_every_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder, state, _ = report_of(decisions(load_text(SEARCH)))
    results = sweep_results(folder, state)
    figures = {figure.name: figure for figure in search_slices(results)}
    assert list(figures) == [
        "search-s0.9-warmup_epochs",
        "search-s0.9-prune_iterations",
    ]  # the other group has one configuration
    rows = figures["search-s0.9-prune_iterations"].spec["data"]["values"]
    # The first has seeds of 0.8 and 0.9; the second one of 0.7; the third was stopped early and has no result.
    assert [(row["value"], row["mean"], row["state"]) for row in rows] == [
        (1, pytest.approx(0.85), "recommended"),
        (10, 0.7, "in the race"),
    ]
    assert figures["search-s0.9-warmup_epochs"].description.endswith(
        "Recommended is warmup_epochs 0, prune_iterations 1 with 0.85."
    )
    page = html_page(results)
    assert "What the search tried" in page
    assert ">ruled out<" in page
    assert search_slices(replace(results, overview=None)) == []
