"""The tables of a comparison of methods.

A reference that loses is shown as clearly as one that wins: by a mark and a colour.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from orchestrator.recommendation.paired_test import ALPHA, Difference
from orchestrator.reporting.aggregate import ConfigSummary
from orchestrator.reporting.comparison import Comparison, Pair, Summary
from trainables.config.lookup import is_dense, method_label
from trainables.config.methods import CUSTOM_PREFIX, DENSE
from trainables.custom.references import is_custom

BETTER, WORSE = "▲", "▼"
STYLES = {"win": "bold green", "lose": "bold red", "": ""}
UNLIMITED = 10_000  # columns of a terminal
NARROW_HEADERS = {"warm-up": "warm-\nup", "difference": "differ-\nence", "95 % interval": "95 %\ninterval"}
SUMMARY_COLUMNS = (
    "against",
    "cells",
    "better",
    "worse",
    f"{BETTER} p<{ALPHA}",
    f"{WORSE} p<{ALPHA}",
    "mean diff",
    "prune\n×",
    "search\n×",
)


@dataclass(frozen=True, slots=True)
class Row:
    """Cells of one line; a line about one test has its verdict as a whole, others by the marks of their cells."""

    cells: tuple[str, ...]
    verdict: str = ""

    def verdict_of(self, cell: str) -> str:
        return self.verdict or _verdict(cell)


@dataclass(frozen=True, slots=True)
class ResultTable:
    """One table: a title, its columns, its lines; footnotes hold what has no room in a line."""

    title: str
    columns: tuple[str, ...]
    rows: list[Row] = field(default_factory=list)
    footnotes: dict[str, int] = field(default_factory=dict)

    def footnote_line(self) -> str:
        return ", ".join(f"#{number}: {text}" for text, number in self.footnotes.items())


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Prints the summary, a table for every other method, the loss against the dense baseline, and notes."""
    print_tables(tables_of(comparison), console)
    for line in notes_of(comparison):
        console.print(line, style="dim", markup=False)


def print_tables(tables: Sequence[ResultTable], console: Console) -> None:
    """Prints the tables one below the other; cells that do not fit are broken at set points, never cut off."""
    unlimited = console.options.update(max_width=UNLIMITED)
    for block in tables:
        for break_headers, break_cells in ((False, False), (True, False), (True, True)):
            table = _rich_table(block, break_headers, break_cells)
            table.width = Measurement.get(console, unlimited, table).maximum
            if table.width <= console.width:
                break
        console.print(table, crop=False)
        console.print(block.footnote_line(), style="dim", markup=False)


def _rich_table(block: ResultTable, break_headers: bool, break_cells: bool) -> Table:
    padding = 1 if break_cells else 2
    table = Table(title=block.title, title_justify="left", header_style="bold", box=None, padding=(0, padding, 0, 0))
    for column in block.columns:
        table.add_column(_broken(column) if break_headers else column, justify="right", no_wrap=True)
    for row in block.rows:
        cells = (_broken(cell) if break_cells else cell for cell in row.cells)
        table.add_row(*(Text(text, STYLES[row.verdict_of(cell)]) for text, cell in zip(cells, row.cells, strict=True)))
    return table


def _broken(text: str) -> str:
    """A header or a cell in lines as short as possible; words, numbers and their signs stay whole."""
    if is_custom(text):
        return re.sub(r"(?<=[:.])", "\n", text)
    text = NARROW_HEADERS.get(text, text)
    return text.replace(" ± ", "\n± ").replace("…", "…\n").replace(" | ", " |\n")


def tables_of(comparison: Comparison) -> list[ResultTable]:
    """The tables from first to last; without those that have no line."""
    reference = comparison.reference
    tables = [ResultTable("summary over all cells", SUMMARY_COLUMNS, [_summary_row(one) for one in comparison.summaries()])]
    for method in comparison.methods:
        tables += _detail(f"{reference} against {method_label(method)}", reference, method, comparison.against(method))
    tables += _detail(f"{reference} against the dense baseline", reference, DENSE, comparison.dense)
    return tables


def notes_of(comparison: Comparison) -> list[str]:
    """How to read the tables."""
    reference = comparison.reference
    lines = [
        f"difference: test accuracy of {reference} minus the other's, paired by seed; ± is the sample standard deviation, n "
        f"the number of seeds. In each cell both sides have their best setting by mean validation accuracy (chosen: its "
        f"iterations and method options).",
        f"{BETTER} {reference} is better, {WORSE} {reference} is worse: two-sided paired t-test, p < {ALPHA}. ×: the other's "
        f"seconds over those of {reference}, of pruning alone and with the warm-up; below 1 the other is faster.",
        f"p values are not corrected for their number, {comparison.tests}: without any real difference about "
        f"{comparison.tests * ALPHA:.1f} would be below {ALPHA}. Cells share seeds, so they are not independent either.",
    ]
    everything = comparison.pairs + comparison.dense
    untested = Counter(
        "one seed" if pair.difference.std is None else "equal differences" for pair in everything if pair.difference.p is None
    )
    if untested["one seed"]:
        lines.append(f"{untested['one seed']} comparisons have one seed: no test; more seeds, for example search.seed=[0,1,2]")
    if untested["equal differences"]:
        lines.append(
            f"{untested['equal differences']} comparisons have the same difference in every seed: no test without spread"
        )
    unpaired = sum(len(pair.unpaired) for pair in everything)
    if unpaired:
        lines.append(f"{unpaired} results were excluded, since only one side has finished their seed")
    at_once = sorted({pair.method for pair in comparison.pairs if pair.prune_ratio == 0})
    if at_once:
        lines.append(f"× of 0: {', '.join(at_once)} prune during training, so what it costs is part of the training")
    for (method, why), count in Counter((one.method, one.reason) for one in comparison.excluded).items():
        lines.append(f"{method}: {count} cells of {reference} excluded, {why}")
    return lines


def _detail(title: str, reference: str, other: str, pairs: Sequence[Pair]) -> list[ResultTable]:
    """One table for each combination of other axes, since a line has no room for them."""
    timed = not is_dense(other)
    times = ("prune\n×", "search\n×") if timed else ()
    methods = (_column_head(reference), _column_head(other))
    columns = ("sparsity", "warm-up", *methods, "difference", "95 % interval", "p", "n", *times, "chosen")
    tables: dict[str, ResultTable] = {}
    for pair in pairs:
        extra_axes = pair.cell.extra_axes
        block = tables.setdefault(extra_axes, ResultTable(f"{title}, {extra_axes}" if extra_axes else title, columns))
        block.rows.append(_detail_row(pair, timed, block.footnotes))
    return list(tables.values())


def _column_head(method: str) -> str:
    """The name of a method, that of a custom one on two lines."""
    return method.removeprefix(CUSTOM_PREFIX).replace(".", "\n.")


def _detail_row(pair: Pair, timed: bool, notes: dict[str, int]) -> Row:
    difference = pair.difference
    times = (_ratio(pair.prune_ratio), _ratio(pair.search_ratio)) if timed else ()
    sides = (pair.reference, pair.other) if timed else (pair.reference,)
    spread = "" if difference.std is None else f" ± {difference.std:.3f}"
    interval = "" if difference.interval is None else "{:+.3f}…{:+.3f}".format(*difference.interval)
    cells = (
        repr(pair.cell.sparsity),
        str(pair.cell.warmup_epochs),
        f"{pair.reference_test:.3f}",
        f"{pair.other_test:.3f}",
        f"{difference.mean:+.3f}{spread}",
        interval,
        _p(difference),
        str(difference.n),
        *times,
        " | ".join(_chosen(side, notes) for side in sides),
    )
    return Row(cells, _verdict(_p(difference)))


def _summary_row(summary: Summary) -> Row:
    won, lost = summary.significantly_better, summary.significantly_worse
    cells = (
        method_label(summary.method),
        str(summary.cells) + (f" of {summary.cells + summary.excluded}" if summary.excluded else ""),
        str(summary.better),
        str(summary.worse),
        f"{won} {BETTER}" if won else "0",
        f"{lost} {WORSE}" if lost else "0",
        "" if summary.mean_difference is None else f"{summary.mean_difference:+.3f}",
        _ratio(summary.prune_ratio),
        _ratio(summary.search_ratio),
    )
    return Row(cells)


def _verdict(text: str) -> str:
    return "win" if BETTER in text else "lose" if WORSE in text else ""


def _p(difference: Difference) -> str:
    if difference.p is None:
        return "one seed" if difference.std is None else "all equal"
    mark = "" if not difference.significant else f" {BETTER}" if difference.mean > 0 else f" {WORSE}"
    return ("<0.001" if difference.p < 0.001 else f"{difference.p:.3f}") + mark


def _ratio(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2g}" if value < 0.1 else f"{value:.2f}" if value < 10 else f"{value:.0f}"


def _chosen(setting: ConfigSummary, notes: dict[str, int]) -> str:
    """Iterations, and the number of the footnote with the options of the method."""
    options = setting.method_options
    return f"{setting.config.iterations_label}" + (f"#{notes.setdefault(options, len(notes) + 1)}" if options else "")
