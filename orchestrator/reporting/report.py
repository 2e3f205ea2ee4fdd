"""Results -> tables and heat maps, in the terminal, as one HTML file and as artifacts of the sweep's run."""

from __future__ import annotations

import base64
import html
import json
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.command_line import command
from orchestrator.reporting.aggregate import (
    ConfigSummary,
    baseline_of,
    config_name,
    fingerprint_counts,
    settings_of,
    several_methods,
)
from orchestrator.reporting.comparison import Comparison, comparable, compare
from orchestrator.reporting.comparison_tables import to_html
from orchestrator.reporting.heatmap_grids import Grid, grids
from orchestrator.reporting.heatmaps import heat_map, shown_width
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.state.sweep_state import SweepState
from orchestrator.state.trial_results import recorded_state
from trainables.config.keys import canonical
from trainables.config.methods import DENSE

COLUMNS = ("sparsity", "warm-up", "iters", "val accuracy", "test accuracy", "seeds", "epochs", "search s")
PLAIN_WIDTH = 110  # columns of output that goes to a file


@dataclass(frozen=True, kw_only=True)
class Report:
    """The results of one sweep, ready to be shown."""

    sweep: str
    settings: list[ConfigSummary]
    counts: dict[str, int]
    fingerprints: list[str]
    damage: list[str] = field(default_factory=list)  # files that are no longer what was written; their trials are left out
    comparison: Comparison | None = None  # where the sweep has DRIVE and other methods

    def print(self) -> None:
        """The table and a heat map per sparsity on stdout, as wide as the terminal allows."""
        console = terminal()
        console.print(self._table())
        for grid in grids(self.settings):
            console.print(f"test accuracy, {grid.title}", style="italic", markup=False)
            console.print(_terminal_map(grid))
        for line in self._remarks():
            console.print(line, style="dim", markup=False, soft_wrap=True)
        if self.comparison:
            line = f"{self.comparison.reference} against the other methods: {command('compare', self.sweep)}"
            console.print(line, markup=False, soft_wrap=True)

    def to_json(self) -> dict[str, Any]:
        def spread(value: Any) -> dict[str, Any] | None:
            return None if value is None else {"mean": value.mean, "std": value.std, "n": value.n}

        rows = [
            {
                "config": canonical(one.config),
                "method": one.config.method,
                "sparsity": one.config.sparsity,
                "warmup_epochs": one.config.warmup_epochs,
                "prune_iterations": one.config.rounds,
                "val/accuracy": spread(one.validation),
                "test/accuracy": spread(one.test),
                "total_epochs": one.config.trained_epochs,
                "search_seconds": one.search_seconds,
                "best": one.best,
                "trials": list(one.keys),
            }
            for one in self.settings
        ]
        return {"sweep": self.sweep, **self.counts, "settings": rows, "fingerprints": self.fingerprints, "damaged": self.damage}

    def to_html(self) -> str:
        """One page that needs nothing else."""
        head = "".join(f"<th>{column}</th>" for column in self._columns())
        rows = "".join(
            f"<tr class='{'best' if one.best else 'dense' if one.is_dense else ''}'>"
            + "".join(f"<td>{html.escape(cell)}</td>" for cell in self._cells(one))
            + "</tr>"
            for one in self.settings
        )
        maps = "".join(
            f"<img alt='{html.escape(name)}' width={shown_width(png)}"
            f" src='data:image/png;base64,{base64.b64encode(png).decode()}'>"
            for name, png in self.figures().items()
        )
        remarks = "".join(f"<p class='remark'>{html.escape(line)}</p>" for line in self._remarks())
        return _PAGE.format(
            title=html.escape(self.sweep),
            summary=html.escape(self._summary().partition(": ")[2]),
            head=head,
            rows=rows,
            maps=maps,
            remarks=remarks,
            comparison=to_html(self.comparison) if self.comparison else "",
        )

    def figures(self) -> dict[str, bytes]:
        """File name -> PNG of every heat map with more than one field."""
        made = {}
        for grid in grids(self.settings):
            name = "heatmap-" + grid.title.replace("sparsity ", "s").replace(", ", "-").replace("/", "-")
            dense = baseline_of(grid.settings[0], self.settings)
            made[f"{name}.png"] = heat_map(grid, dense.test.mean if dense and dense.test else None)
        return made

    def _columns(self) -> list[str]:
        method = ["method"] if several_methods(self.settings) else []
        others = ["other"] if any(one.others for one in self.settings) else []
        return [*method, COLUMNS[0], *others, *COLUMNS[1:]]

    def _cells(self, setting: ConfigSummary) -> list[str]:
        config = setting.config
        method = [config.method] if several_methods(self.settings) else []
        others = [setting.others] if any(one.others for one in self.settings) else []
        sparsity = DENSE if setting.is_dense else f"{config.sparsity!r}{' *' if setting.best else ''}"
        seeds = str(setting.test.n if setting.test else 0) + (
            f" of {setting.test.n + setting.missing}" if setting.missing and setting.test else ""
        )
        return [
            *method,
            sparsity,
            *others,
            "" if setting.is_dense else str(config.warmup_epochs),
            "" if setting.is_dense else str(config.rounds),
            str(setting.validation) if setting.validation else "",
            str(setting.test) + (f"  ({setting.emptied_layers} layers empty)" if setting.emptied_layers else ""),
            seeds,
            str(config.trained_epochs),
            "" if setting.is_dense else f"{setting.search_seconds:.2f}",
        ]

    def _table(self) -> Table:
        table = Table(title=self._summary(), title_justify="left", header_style="bold", box=None, padding=(0, 2, 0, 0))
        for column in self._columns():
            table.add_column(column, justify="right", no_wrap=True)
        previous: ConfigSummary | None = None
        for one in self.settings:
            if previous is not None and _block(previous) != _block(one):
                table.add_row()
            table.add_row(*self._cells(one), style="bold green" if one.best else "cyan" if one.is_dense else "")
            previous = one
        return table

    def _summary(self) -> str:
        what = config_name(self.settings[0].config) if self.settings else "no finished trials"
        failed = f", {self.counts['failed']} failed" if self.counts["failed"] else ""
        return f"{self.sweep}: {what}, {self.counts['finished']} of {sum(self.counts.values())} trials finished{failed}"

    def _remarks(self) -> list[str]:
        lines = [
            "* best of its sparsity by mean validation accuracy; test accuracy decides nothing. "
            "± is the sample standard deviation over seeds.",
            "epochs: warm-up, levels of imp and sparse training; search s: warm-up (as if it were not shared) and pruning.",
        ]
        if len(self.fingerprints) > 1:
            lines.append("trials ran under different fingerprints, so bits may differ: " + "; ".join(self.fingerprints))
        again = command("resume", self.sweep)
        lines += [f"left out: {problem}; `{again}` computes the trial anew" for problem in self.damage]
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
    settings = settings_of(state)
    return Report(
        sweep=folder.name,
        settings=settings,
        counts=state.counts(),
        fingerprints=[f"{kind}: {count} trials" for kind, count in counts.most_common()],
        damage=list(damage.values()),
        comparison=compare(state) if comparable(settings) else None,
    )


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


def _terminal_map(grid: Grid) -> Table:
    """Mean test accuracy over warm-up (columns) and the grid's rows, shaded from low to high."""
    means = [one.test.mean for one in grid.settings if one.test]
    low, high = min(means), max(means)
    table = Table(box=None, padding=(0, 0), header_style="dim")
    table.add_column(f"{grid.row_axis} \\ warm-up", style="dim", justify="right")
    for epochs in grid.warmups:
        table.add_column(str(epochs), justify="center", min_width=9)
    for row, label in enumerate(grid.rows):
        cells: list[Text] = []
        for column in range(len(grid.warmups)):
            field = grid.fields.get((row, column))
            if field is None or field.setting.test is None:
                cells.append(Text(""))
                continue
            share = (field.setting.test.mean - low) / (high - low) if high > low else 1.0
            shade = 236 + round(share * 12)  # grey ramp of 256-colour terminals
            note = f" ({field.note})" if field.note else ""
            text = f"{field.setting.test.mean:.4f}{'*' if field.framed else ' '}{note}"
            cells.append(Text(f" {text} ", style=f"{'bold green' if field.framed else 'white'} on color({shade})"))
        table.add_row(f"{label} ", *cells)
    return table


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1c2733; }}
h1 {{ font-size: 1.4rem; margin-bottom: 0; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .25rem .9rem; text-align: right; border-bottom: 1px solid #e3e8ee; white-space: nowrap; }}
th {{ color: #5b6875; font-weight: 600; }}
tr.best td {{ background: #e3f6e8; font-weight: 600; }}
tr.dense td {{ background: #eef4fb; }}
section td, section th {{ padding: .25rem .65rem; }}
h2 {{ font-size: 1.2rem; margin: 2.5rem 0 0; }}
h3 {{ font-size: 1rem; margin: 1.2rem 0 0; }}
td.win {{ background: #e3f6e8; font-weight: 600; }}
td.lose {{ background: #fde7e4; font-weight: 600; }}
img {{ max-width: 100%; margin: .5rem 1rem .5rem 0; vertical-align: top; }}
.remark {{ color: #5b6875; font-size: .85rem; margin: .2rem 0; }}
</style></head><body>
<h1>{title}</h1><p>{summary}</p>
{maps}
<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>
{remarks}
{comparison}
</body></html>
"""
