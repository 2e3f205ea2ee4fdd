"""A report as one HTML page that needs nothing else."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.reporting.figures import shown_width


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table, with its CSS class."""

    cells: tuple[str, ...]
    css_class: str = ""


def html_page(
    title: str,
    summary: str,
    recommendations: Sequence[tuple[str, Sequence[str]]],
    figures: Mapping[str, bytes],
    columns: Sequence[str],
    rows: Sequence[Row],
    notes: Sequence[str],
    sections: str,
) -> str:
    """The page.

    Args:
        recommendations: a sentence for each group, with its details.
        figures: file name -> PNG.
        sections: further sections in HTML, or nothing.
    """
    return _PAGE.format(
        title=html.escape(title),
        summary=html.escape(summary),
        recommendations="".join(_recommendation(*one) for one in recommendations),
        head="".join(f"<th>{column}</th>" for column in columns),
        rows="".join(map(_row, rows)),
        figures="".join(_image(name, png) for name, png in figures.items()),
        notes="".join(f"<p class='remark'>{html.escape(line)}</p>" for line in notes),
        sections=sections,
    )


def _recommendation(sentence: str, details: Sequence[str]) -> str:
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in details)
    return f"<div class='answer'><p>{html.escape(sentence)}</p><ul>{lines}</ul></div>"


def _row(row: Row) -> str:
    cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in row.cells)
    return f"<tr class='{row.css_class}'>{cells}</tr>"


def _image(name: str, png: bytes) -> str:
    data = base64.b64encode(png).decode()
    return f"<img alt='{html.escape(name)}' width={shown_width(png)} src='data:image/png;base64,{data}'>"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1c2733; }}
h1 {{ font-size: 1.4rem; margin-bottom: 0; }}
.answer {{ border-left: 4px solid #2f9e57; padding: .1rem 1rem; margin: 1rem 0; background: #f4faf6; }}
.answer p {{ font-weight: 600; margin: .5rem 0; }}
.answer ul {{ margin: .3rem 0 .6rem; padding-left: 1.2rem; }}
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
{recommendations}
{figures}
<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>
{notes}
{sections}
</body></html>
"""
