"""The figures of a report: a table of functions that draw them. A new figure is a file and a line in FIGURES."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.reporting.aggregate import ConfigSummary
from orchestrator.reporting.heatmaps import DPI, heat_maps

SHOWN_DPI = 100  # on a page: all figures of a report at one scale, whatever their size

Figures = Callable[[list[ConfigSummary]], dict[str, bytes]]
"""From the results of a sweep, file name -> PNG at DPI dots per inch; empty where there is nothing to draw."""

FIGURES: dict[str, Figures] = {
    "heat maps": heat_maps,
}


def draw_figures(summaries: list[ConfigSummary]) -> dict[str, bytes]:
    """File name -> PNG of every figure, in the order of FIGURES."""
    return {name: png for draw in FIGURES.values() for name, png in draw(summaries).items()}


def shown_width(png: bytes) -> int:
    """Width in CSS pixels at which a page shows a figure."""
    return int.from_bytes(png[16:20], "big") * SHOWN_DPI // DPI
