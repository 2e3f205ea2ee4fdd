"""The report as files: artifacts of the sweep's run in MLflow, and a folder that one can give away."""

from __future__ import annotations

import json

from orchestrator.figures.render import png, svg
from orchestrator.figures.table import draw_figures
from orchestrator.page.page import html_page
from orchestrator.page.rows import to_csv, to_parquet, trial_rows
from orchestrator.reporting.report import report_of
from orchestrator.reporting.sweep_results import SweepResults, sweep_results
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.state.sweep_state import SweepState

PAGE = "report.html"


def write_report(folder: SweepFolder, state: SweepState) -> dict[str, bytes]:
    """Artifacts of the sweep's run by file name: the page, every figure as PNG, the numbers, the sweep file.

    With several methods compare.json is one of them. Empty while no trial has finished.
    """
    results = sweep_results(folder, state)
    if not results.settings:
        return {}
    drawn = draw_figures(results)
    files = {f"{figure.name}.png": png(figure) for _, figures in drawn for figure in figures}
    return files | {PAGE: html_page(results, drawn).encode()} | _numbers(results)


def report_files(results: SweepResults) -> dict[str, bytes]:
    """Everything for `report --out`: the page, every figure as PNG and SVG, the trials as CSV and Parquet, the numbers."""
    drawn = draw_figures(results)
    files = {PAGE: html_page(results, drawn).encode()}
    for _, figures in drawn:
        for figure in figures:
            files[f"figures/{figure.name}.png"], files[f"figures/{figure.name}.svg"] = png(figure), svg(figure)
    rows = trial_rows(results)
    return files | {"trials.csv": to_csv(rows), "trials.parquet": to_parquet(rows)} | _numbers(results)


def _numbers(results: SweepResults) -> dict[str, bytes]:
    report = report_of(results)
    files = {"report.json": json.dumps(report.to_json(), indent=1).encode()}
    if report.comparison:
        files["compare.json"] = json.dumps(report.comparison.to_json(), indent=1).encode()
    return files | {"sweep.yaml": results.folder.storage.read(results.folder.file("sweep.yaml")) or b""}
