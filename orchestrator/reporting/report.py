"""The results of a sweep as a table with notes, in the terminal and as JSON."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from orchestrator.command_line import command
from orchestrator.prose import PlainConsole, print_prose
from orchestrator.recommendation.recommendation import Recommendation, to_json
from orchestrator.recommendation.sentences import details_of_all, sentence
from orchestrator.reporting.aggregate import ConfigSummary, config_name, fingerprint_counts, numbers_of_workers, workers_notes
from orchestrator.reporting.comparison import Comparison, can_compare, compare
from orchestrator.reporting.heatmap_grids import grids
from orchestrator.reporting.report_columns import fitting_columns, json_values, shown_columns
from orchestrator.reporting.search_section import SearchSection
from orchestrator.reporting.sweep_results import SweepResults, sweep_results
from orchestrator.reporting.terminal_heatmap import terminal_maps
from orchestrator.state.earlier_files import EarlierFile, earlier_files
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.state.sweep_state import SweepState
from trainables.config.keys import canonical
from trainables.wording import counted

PLAIN_WIDTH = 110  # columns of output that goes to a file


@dataclass(frozen=True, kw_only=True)
class Report:
    """The results of one sweep, ready to be shown."""

    sweep: str
    settings: list[ConfigSummary]
    counts: dict[str, int]
    fingerprints: list[str]
    workers: list[int] = field(default_factory=list)  # that trials had, each number once
    damage: list[str] = field(default_factory=list)  # files that are no longer what was written; their trials are excluded
    comparison: Comparison | None = None  # where the sweep has DRIVE and other methods
    search: SearchSection | None = None  # where the sweep is a search
    recommendations: list[Recommendation] = field(default_factory=list)  # of each group with results
    earlier_files: list[EarlierFile] = field(default_factory=list)  # of the user's, that some trials were made with

    def print(self) -> None:
        """The recommendations, the table and a heat map per sparsity on stdout, as wide as the terminal allows."""
        console = terminal()
        for one, lines in zip(self.recommendations, details_of_all(self.recommendations), strict=True):
            print_prose(console, sentence(one), style="bold")
            for line in lines:
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
            "workers_per_trial": self.workers,
            "damaged": self.damage,
            "search": search,
            "recommendation": [to_json(one) for one in self.recommendations],
            "earlier_files": [one.to_json() for one in self.earlier_files],
        }

    def columns(self) -> list[str]:
        return [column.head for column in shown_columns(self.settings)]

    def cells(self, setting: ConfigSummary) -> list[str]:
        return [column.cell(setting) for column in shown_columns(self.settings)]

    def _print_table(self, console: Console) -> None:
        """A line for each setting, without the columns for which a terminal is too narrow."""
        columns, left_out = fitting_columns(self.settings, console.width)
        table = Table(title=self.summary(), title_justify="left", header_style="bold", box=None, padding=(0, 2, 0, 0))
        for column in columns:
            table.add_column(column.head, justify="right", no_wrap=not column.wraps)
        has_blocks = max(Counter(map(_block, self.settings)).values(), default=1) > 1
        previous: ConfigSummary | None = None
        for one in self.settings:
            if has_blocks and previous is not None and _block(previous) != _block(one):
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
        lines += workers_notes(self.workers)
        lines += [one.sentence for one in self.earlier_files]
        again = command("resume", self.sweep)
        lines += [f"excluded: {problem}; `{again}` computes the trial again" for problem in self.damage]
        return lines


def _block(setting: ConfigSummary) -> tuple[str, float]:
    """Lines of one block of the table stand together."""
    return setting.config.method, setting.config.sparsity


def terminal() -> Console:
    """Stdout, as wide as the terminal allows, PLAIN_WIDTH columns in a file or pipe."""
    console = PlainConsole()
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console


def make_report(folder: SweepFolder, state: SweepState) -> Report:
    """The report of what has finished so far."""
    return report_of(sweep_results(folder, state))


def report_of(results: SweepResults) -> Report:
    settings = list(results.settings)
    counts = fingerprint_counts(results.records.values())
    return Report(
        sweep=results.name,
        settings=settings,
        counts=results.state.counts(),
        fingerprints=[f"{kind}: {counted(count, 'trial')}" for kind, count in counts.most_common()],
        workers=numbers_of_workers(results.records.values()),
        damage=list(results.damage.values()),
        comparison=compare(results.state) if can_compare(settings) else None,
        search=SearchSection.of(results.overview, results.state) if results.overview else None,
        recommendations=list(results.recommendations),
        earlier_files=earlier_files(results.kept, results.records.keys()),
    )
