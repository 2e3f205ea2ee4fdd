"""Settings and versions on the page: the table over seeds, the sweep file, what the trials ran on."""

from __future__ import annotations

from collections import Counter

from orchestrator.page.markup import Cell, Line, Section, listing, paragraph, preformatted, table, text
from orchestrator.reporting.comparison_tables import ResultTable, notes_of, tables_of
from orchestrator.reporting.report import Report
from orchestrator.reporting.report_columns import shown_columns
from orchestrator.reporting.sweep_results import SweepResults


def settings_section(report: Report) -> Section:
    heads = [column.head for column in shown_columns(report.settings)]
    lines = [
        Line(
            cells=[Cell(text=cell) for cell in report.cells(one)],
            css_class="best" if one.best else "dense" if one.is_dense else "",
        )
        for one in report.settings
    ]
    content = table(heads, lines, "settings, mean over seeds", "settings-table") if lines else ""
    notes = "".join(paragraph(line, "remark") for line in report.notes()) if lines else ""
    return Section(id="settings", title="Settings", content=content + notes)


def comparison_section(report: Report) -> Section:
    """DRIVE, or the first method, against every other one."""
    if report.comparison is None:
        return Section(id="comparison", title="Comparison", content="")
    notes = "".join(paragraph(line, "remark") for line in notes_of(report.comparison))
    content = "".join(map(_result_table, tables_of(report.comparison))) + notes
    return Section(id="comparison", title=f"{report.comparison.reference} against the other methods", content=content)


def versions_section(report: Report, results: SweepResults) -> Section:
    revisions = Counter(str(record.get("revision") or "unknown") for record in results.records.values())
    lines = [f"drive-sweep at revision {revision}: {count} trials" for revision, count in revisions.most_common()]
    lines += report.fingerprints
    lines += [one.sentence for one in report.earlier_files]
    file = results.folder.storage.read(results.folder.file("sweep.yaml"))
    written = "<h3>sweep file</h3>" + preformatted(file.decode(errors="replace")) if file else ""
    return Section(id="versions", title="Sweep file and versions", content=listing(lines) + written)


def _result_table(block: ResultTable) -> str:
    lines = [Line(cells=[Cell(text=cell, css_class=row.verdict_of(cell)) for cell in row.cells]) for row in block.rows]
    footnotes = paragraph(block.footnote_line(), "remark") if block.footnotes else ""
    return f"<h3>{text(block.title)}</h3>" + table(block.columns, lines, block.title) + footnotes
