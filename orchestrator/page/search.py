"""A search on the page: what each group found, what it ruled out and why."""

from __future__ import annotations

from orchestrator.page.markup import Cell, Line, Section, listing, paragraph, table, text
from orchestrator.reporting.search_section import SearchSection
from orchestrator.reporting.sweep_results import SweepResults
from orchestrator.search.overview import ConfigurationOverview, GroupOverview


def search_section(results: SweepResults) -> Section:
    if results.overview is None:
        return Section(id="search", title="The search", content="")
    section = SearchSection.of(results.overview, results.state)
    parts = [listing(line.strip() for line in section.lines())]
    for block in section.blocks():
        lines = [Line(cells=[Cell(text=cell) for cell in row]) for row in block.rows]
        parts.append(f"<h3>{text(block.title)}</h3>" + table(block.columns, lines, block.title))
    lines = [_line(group, one) for group in results.overview.groups for one in group.configurations if one.ruled_out]
    if lines:
        objective = next(iter(results.overview.objectives))
        heads = ("group", "configuration", "seeds", objective, "why")
        parts.append("<h3>ruled out</h3>" + paragraph(f"{len(lines)} configurations get no more seeds.", "remark"))
        parts.append(table(heads, lines, "configurations that were ruled out", "ruled-out"))
    return Section(id="search", title="The search", content="".join(parts))


def _line(group: GroupOverview, one: ConfigurationOverview) -> Line:
    mean = next(iter(one.means.values()), None)
    cells = [
        Cell(text=group.name, css_class="text"),
        Cell(text=one.text, css_class="text"),
        Cell(text=str(len(one.keys))),
        Cell(text="") if mean is None else Cell(text=f"{mean:.4g}", value=mean),
        Cell(text=one.ruled_out, css_class="text wrap"),
    ]
    return Line(cells=cells)
