"""The table of figures: a new one is seen wherever figures are shown."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from orchestrator.reporting import figures
from orchestrator.reporting.aggregate import ConfigSummary
from orchestrator.reporting.report import make_report, write_report
from tests.orchestrator.reporting.test_comparison import mixed_methods, stored

HEADER = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 300, 200)  # 300 by 200 pixels


def seeds_per_configuration(summaries: list[ConfigSummary]) -> dict[str, bytes]:
    """A toy figure: one PNG with the number of configurations."""
    return {"toy.png": HEADER + str(len(summaries)).encode()}


def test_new_figure_is_in_the_page_and_among_the_artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = mixed_methods(best_at_2=1)
    folder = stored(state, tmp_path)
    monkeypatch.setitem(figures.FIGURES, "toy", seeds_per_configuration)
    artifacts = write_report(folder, state)
    monkeypatch.setattr(figures, "FIGURES", {})
    without = write_report(folder, state)
    number = len(make_report(folder, state).settings)
    assert artifacts["toy.png"] == HEADER + str(number).encode()
    assert {"toy.png", "heatmap-methods-s0.9.png"} <= artifacts.keys() - without.keys()
    page = artifacts["report.html"].decode()
    assert "<img alt='toy.png' width=200 src='data:image/png;base64," in page
    assert page.index("heatmap-methods-s0.9.png") < page.index("toy.png")


def test_figure_may_draw_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = mixed_methods(best_at_2=1)
    folder = stored(state, tmp_path)
    monkeypatch.setattr(figures, "FIGURES", {"toy": seeds_per_configuration, "nothing": lambda summaries: {}})
    assert list(make_report(folder, state).figures()) == ["toy.png"]
