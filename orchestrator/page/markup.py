"""HTML for texts, tables and figures; whatever comes from a sweep is escaped here."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainables.wording import without_controls


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell of a table.

    Attributes:
        value: what the table is sorted by; the text by default.
        link: where the text leads.
        css_class: text for words, wrap for long ones, win and lose for verdicts.
    """

    text: str
    value: float | None = None
    link: str = ""
    css_class: str = ""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a table."""

    cells: Sequence[Cell]
    css_class: str = ""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page with a heading; without content it is left out.

    Attributes:
        is_narrow: whether another one may stand beside it.
    """

    id: str
    title: str
    content: str
    is_narrow: bool = False


def text(value: object) -> str:
    return html.escape(without_controls(str(value)))


def paragraph(value: object, css_class: str = "") -> str:
    return f"<p{_class(css_class)}>{_prose(value)}</p>"


def listing(lines: Iterable[object]) -> str:
    items = "".join(f"<li>{_prose(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def preformatted(content: str) -> str:
    return f'<pre tabindex="0">{text(content)}</pre>'


def table(heads: Sequence[str], lines: Sequence[Line], label: str, table_id: str = "") -> str:
    """A table that scrolls by itself where it is too wide.

    Args:
        label: what it holds, for those who cannot see it.
        table_id: makes it sortable, with a filter above it.
    """
    if table_id:
        columns = "".join(f'<th scope="col"><button type="button">{text(head)}</button></th>' for head in heads)
        opening = f'<table class="sortable" id="{text(table_id)}">'
    else:
        columns = "".join(f'<th scope="col">{text(head)}</th>' for head in heads)
        opening = "<table>"
    rows = "".join(_line(line) for line in lines)
    body = f"{opening}<thead><tr>{columns}</tr></thead><tbody>{rows}</tbody></table>"
    scroll = f'<div class="scroll" role="region" tabindex="0" aria-label="{text(label)}">{body}</div>'
    return (_filter(table_id, len(lines)) if table_id else "") + scroll


def json_block(block_id: str, content: Mapping[str, Any]) -> str:
    """Data for the page's script; no text in it can end the block."""
    data = json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="{block_id}">{data}</script>'


def _prose(value: object) -> str:
    """A sentence, in which no percentage is broken."""
    return text(value).replace(" %", "&nbsp;%")


def _filter(table_id: str, count: int) -> str:
    count_id = f"{table_id}-count"
    return (
        f'<p class="controls"><label>filter <input type="search" data-table="{text(table_id)}" '
        f'placeholder="words of a row" aria-describedby="{text(count_id)}"></label> '
        f'<span id="{text(count_id)}" role="status" class="remark">{count} of {count}</span></p>'
    )


def _line(line: Line) -> str:
    return f"<tr{_class(line.css_class)}>{''.join(map(_cell, line.cells))}</tr>"


def _cell(cell: Cell) -> str:
    value = "" if cell.value is None else f' data-value="{cell.value!r}"'
    content = f'<a href="{text(cell.link)}">{text(cell.text)}</a>' if cell.link else text(cell.text)
    return f"<td{_class(cell.css_class)}{value}>{content}</td>"


def _class(name: str) -> str:
    return f' class="{text(name)}"' if name else ""
