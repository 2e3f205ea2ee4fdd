"""The results of a sweep as a table with notes, in the terminal, as JSON and as artifacts of the sweep's run."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

from rich.console import Console
from rich.table import Table

from orchestrator.command_line import command
from orchestrator.prose import print_prose
from orchestrator.recommendation.recommendation import Recommendation, recommendations, to_json
from orchestrator.recommendation.sentences import details, sentence
from orchestrator.reporting.aggregate import (
    ConfigSummary,
    config_name,
    config_summaries,
    fingerprint_counts,
)
from orchestrator.reporting.comparison import Comparison, can_compare, compare
from orchestrator.reporting.comparison_tables import to_html as comparison_html
from orchestrator.reporting.figures import draw_figures
from orchestrator.reporting.heatmap_grids import grids
from orchestrator.reporting.html_page import Row, html_page
from orchestrator.reporting.report_columns import fitting_columns, json_values, shown_columns
from orchestrator.reporting.search_section import SearchSection
from orchestrator.reporting.terminal_heatmap import terminal_maps
from orchestrator.search.overview import SearchOverview, recorded_overview
from orchestrator.spec.loader import spec_from_resolved
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.state.sweep_state import SweepState
from orchestrator.state.trial_results import recorded_state
from trainables.config.keys import canonical

PLAIN_WIDTH = 110  # columns of output that goes to a file


@dataclass(frozen=True, kw_only=True)
class Report:
    """The results of one sweep, ready to be shown."""

    sweep: str
    settings: list[ConfigSummary]
    counts: dict[str, int]
    fingerprints: list[str]
    damage: list[str] = field(default_factory=list)  # files that are no longer what was written; their trials are excluded
    comparison: Comparison | None = None  # where the sweep has DRIVE and other methods
    search: SearchSection | None = None  # where the sweep is a search
    recommendations: list[Recommendation] = field(default_factory=list)  # of each group with results

    def print(self) -> None:
        """The recommendations, the table and a heat map per sparsity on stdout, as wide as the terminal allows."""
        console = terminal()
        for one in self.recommendations:
            print_prose(console, sentence(one), style="bold")
            for line in details(one):
                print_prose(console, line, indent=2)
        if self.recommendations:
            console.print()
        self._print_table(console)
        for grid in grids(self.settings):
            console.print(f"test accuracy, {grid.title}", style="italic", markup=False)
            for part in terminal_maps(grid, console.width):
                console.print(part)
        if self.search:
            self.search.print(console)
        for line in self.notes():
            print_prose(console, line, style="dim")
        if self.comparison:
            line = f"{self.comparison.reference} against the other methods: {command('compare', self.sweep)}"
            console.print(line, markup=False, soft_wrap=True)

    def to_json(self) -> dict[str, Any]:
        rows = [
            {"config": canonical(one.config), **json_values(one), "best": one.best, "trials": list(one.keys)}
            for one in self.settings
        ]
        search = self.search.to_json() if self.search else None
        return {
            "sweep": self.sweep,
            **self.counts,
            "settings": rows,
            "fingerprints": self.fingerprints,
            "damaged": self.damage,
            "search": search,
            "recommendation": [to_json(one) for one in self.recommendations],
        }

    def to_html(self) -> str:
        """One page that needs nothing else."""
        return html_page(
            title=self.sweep,
            summary=self.summary().partition(": ")[2],
            recommendations=[(sentence(one), details(one)) for one in self.recommendations],
            figures=self.figures(),
            columns=self.columns(),
            rows=[
                Row(tuple(self.cells(one)), "best" if one.best else "dense" if one.is_dense else "") for one in self.settings
            ],
            notes=self.notes(),
            sections=(self.search.to_html() if self.search else "")
            + (comparison_html(self.comparison) if self.comparison else ""),
        )

    def figures(self) -> dict[str, bytes]:
        """File name -> PNG of every figure."""
        return draw_figures(self.settings)

    def columns(self) -> list[str]:
        return [column.head for column in shown_columns(self.settings)]

    def cells(self, setting: ConfigSummary) -> list[str]:
        return [column.cell(setting) for column in shown_columns(self.settings)]

    def _print_table(self, console: Console) -> None:
        """A line for each setting, without the columns for which a terminal is too narrow."""
        columns, left_out = fitting_columns(self.settings, console.width)
        table = Table(title=self.summary(), title_justify="left", header_style="bold", box=None, padding=(0, 2, 0, 0))
        for column in columns:
            table.add_column(column.head, justify="right", no_wrap=True)
        previous: ConfigSummary | None = None
        for one in self.settings:
            if previous is not None and _block(previous) != _block(one):
                table.add_row()
            cells = [column.cell(one) for column in columns]
            table.add_row(*cells, style="bold green" if one.best else "cyan" if one.is_dense else "")
            previous = one
        console.print(table)
        if left_out:
            heads = ", ".join(column.head for column in left_out)
            print_prose(console, f"without {heads}, for which {console.width} columns are too narrow", style="dim")

    def summary(self) -> str:
        what = config_name(self.settings[0].config) if self.settings else "no finished trials"
        failed = f", {self.counts['failed']} failed" if self.counts["failed"] else ""
        if self.search:
            stopped = f", {self.search.stopped} stopped early" if self.search.stopped else ""
            return f"{self.sweep}: {what}, {self.counts['finished']} trials finished{stopped}{failed}"
        return f"{self.sweep}: {what}, {self.counts['finished']} of {sum(self.counts.values())} trials finished{failed}"

    def notes(self) -> list[str]:
        lines = [
            "* recommended; test accuracy decides nothing. ± is the sample standard deviation over seeds.",
            "epochs: warm-up, levels of imp and sparse training; search s: warm-up (as if it were not shared) and pruning.",
        ]
        if len(self.fingerprints) > 1:
            lines.append("trials ran under different fingerprints, so bits may differ: " + "; ".join(self.fingerprints))
        again = command("resume", self.sweep)
        lines += [f"excluded: {problem}; `{again}` computes the trial again" for problem in self.damage]
        return lines


def _block(setting: ConfigSummary) -> tuple[str, float]:
    """Lines of one block of the table stand together."""
    return setting.config.method, setting.config.sparsity


def terminal() -> Console:
    """Stdout, as wide as the terminal allows, PLAIN_WIDTH columns in a file or pipe."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console


def make_report(folder: SweepFolder, state: SweepState) -> Report:
    """The report of what has finished so far."""
    state, results, damage = recorded_state(folder.storage, state)
    counts = fingerprint_counts(list(results.values()))
    overview = recorded_overview(folder, with_importances=True) if state.search else None
    advice = recommended(folder, state, overview)
    keys = frozenset(key for one in advice for key in one.keys)
    settings = config_summaries(state)
    if advice or state.search:
        settings = [replace(one, best=not keys.isdisjoint(one.keys)) for one in settings]
    return Report(
        sweep=folder.name,
        settings=settings,
        counts=state.counts(),
        fingerprints=[f"{kind}: {count} trials" for kind, count in counts.most_common()],
        damage=list(damage.values()),
        comparison=compare(state) if can_compare(settings) else None,
        search=SearchSection.of(overview, state) if overview else None,
        recommendations=advice,
    )


def recommended(folder: SweepFolder, state: SweepState, overview: SearchOverview | None) -> list[Recommendation]:
    """The recommendation for each group by what has finished so far; none without a single objective, or a sweep file.

    Args:
        overview: of a search, whose groups have chosen themselves.
    """
    record = folder.storage.read_json(folder.file("spec.json"))
    if record is None:
        return []
    spec = spec_from_resolved(record)
    groups = overview.groups if overview else ()
    return recommendations(spec, state, {group.name: frozenset(group.best.keys) for group in groups if group.best})


def outcome_text(folder: SweepFolder, state: SweepState) -> str:
    """What was found, for the description of the sweep's run: the recommendations, and of a search how it went."""
    overview = recorded_overview(folder) if state.search else None
    lines = [line for one in recommended(folder, state, overview) for line in (sentence(one), *details(one))]
    if overview:
        lines += SearchSection.of(overview, state).lines()
    return "\n".join(f"- {line.strip()}" for line in lines)


def write_report(folder: SweepFolder, state: SweepState) -> dict[str, bytes]:
    """Artifacts of the sweep's run by file name: the HTML page, the heat maps, the numbers, the sweep file.

    With several methods compare.json is one of them.
    """
    report = make_report(folder, state)
    if not report.settings:
        return {}
    artifacts = report.figures()
    artifacts["report.html"] = report.to_html().encode()
    artifacts["report.json"] = json.dumps(report.to_json(), indent=1).encode()
    if report.comparison:
        artifacts["compare.json"] = json.dumps(report.comparison.to_json(), indent=1).encode()
    artifacts["sweep.yaml"] = folder.storage.read(folder.file("sweep.yaml")) or b""
    return artifacts
