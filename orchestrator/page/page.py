"""The page of a sweep: one HTML file that needs nothing else, and asks nothing of a network."""

from __future__ import annotations

import time
from importlib import resources
from pathlib import Path

from orchestrator.figures.figure import Figure
from orchestrator.figures.render import page_spec
from orchestrator.figures.table import FigureKind, draw_figures
from orchestrator.figures.theme import DARK, LIGHT
from orchestrator.page.library import library
from orchestrator.page.markup import Section, json_block, listing, paragraph, text
from orchestrator.page.plan_and_actual import plan_section
from orchestrator.page.search import search_section
from orchestrator.page.settings import comparison_section, settings_section, versions_section
from orchestrator.page.trials import failures_section, trials_section
from orchestrator.recommendation.recommendation import Recommendation
from orchestrator.recommendation.sentences import details_of_all, sentence
from orchestrator.reporting.report import report_of
from orchestrator.reporting.sweep_results import SweepResults
from trainables.wording import without_controls

MOST_WHOLE = 4  # recommendations with all their details
MOST_AT_ONCE = 4  # figures of a kind; of more a page shows the one that is chosen
POLICY = "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:"

Drawn = list[tuple[FigureKind, list[Figure]]]


def html_page(results: SweepResults, drawn: Drawn | None = None) -> str:
    """The page.

    Args:
        drawn: the figures, if they are drawn already.
    """
    report, drawn = report_of(results), draw_figures(results) if drawn is None else drawn
    sections = [_figures_section(number, kind, figures) for number, (kind, figures) in enumerate(drawn)]
    sections += [
        search_section(results),
        comparison_section(report),
        settings_section(report),
        failures_section(results),
        trials_section(results),
        plan_section(results),
        versions_section(report, results),
    ]
    sections = [section for section in sections if section.content]
    specs = {without_controls(figure.name): page_spec(figure) for _, figures in drawn for figure in figures}
    contents = "".join(f'<a href="#{section.id}">{text(section.title)}</a>' for section in sections)
    summary = report.summary().partition(": ")[2]
    return "".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{text(results.name)} - drive-sweep</title><style>{_style()}</style></head><body>",
            f"<header><h1>{text(results.name)}</h1>{paragraph(summary)}{paragraph(_last_result(results), 'remark')}</header>",
            "<main>",
            *_answers(results),
            f'<nav aria-label="contents">{contents}</nav>',
            f'<div class="sections">{"".join(map(_section, sections))}</div>',
            "</main>",
            paragraph("Figures: Vega-Lite (BSD-3-Clause). This page works without a network.", "remark"),
            json_block("figures", specs),
            f"<script>{library()}</script><script>{_asset('page.js')}</script></body></html>",
        ]
    )


def _answers(results: SweepResults) -> list[str]:
    """A block for each group; where there are many, all but how sure it is stands folded."""
    if not results.recommendations:
        reason = "several objectives have no single best setting" if results.settings else "no trial has finished yet"
        return [f'<div class="answer">{paragraph(f"No recommendation: {reason}.")}</div>']
    many = len(results.recommendations) > MOST_WHOLE
    all_details = zip(results.recommendations, details_of_all(results.recommendations), strict=True)
    return [_answer(one, lines, folded=many) for one, lines in all_details]


def _answer(one: Recommendation, lines: list[str], folded: bool) -> str:
    more = listing(lines[1:])
    if more and folded:
        more = f"<details><summary>more</summary>{more}</details>"
    return f'<div class="answer">{paragraph(sentence(one))}{listing(lines[:1])}{more}</div>'


def _last_result(results: SweepResults) -> str:
    """The time of the newest result, so that the page changes only with the results."""
    newest = max((int(record["finished_ms"]) for record in results.records.values() if "finished_ms" in record), default=None)
    return "" if newest is None else f"Results up to {time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime(newest / 1000))}."


def _section(section: Section) -> str:
    narrow = ' class="narrow"' if section.is_narrow else ""
    return f'<section id="{text(section.id)}"{narrow}><h2>{text(section.title)}</h2>{section.content}</section>'


def _figures_section(number: int, kind: FigureKind, figures: list[Figure]) -> Section:
    kind_id = f"kind-{number}"
    one_at_a_time = len(figures) > MOST_AT_ONCE
    shown = "".join(_figure(figure, hidden=one_at_a_time and position > 0) for position, figure in enumerate(figures))
    content = f'<div class="figures" id="{kind_id}">{shown}</div>'
    if one_at_a_time:
        options = "".join(f'<option value="{text(figure.name)}">{text(figure.title)}</option>' for figure in figures)
        content = f'<p><label>show <select data-kind="{kind_id}">{options}</select></label></p>' + content
    content = paragraph(kind.caption, "remark") + content
    if kind.is_folded:
        content = f'<details class="kind"><summary>show</summary>{content}</details>'
    else:
        content = f'<div class="kind">{content}</div>'
    narrow = (one_at_a_time or len(figures) == 1) and not any(figure.is_wide for figure in figures)
    return Section(id=f"figures-{number}", title=kind.title, content=content, is_narrow=narrow)


def _figure(figure: Figure, hidden: bool) -> str:
    attributes = (' class="wide"' if figure.is_wide else "") + (" hidden" if hidden else "")
    return (
        f'<figure data-name="{text(figure.name)}"{attributes}><figcaption>{text(figure.title)}</figcaption>'
        f'<div class="chart">{paragraph(figure.description)}</div></figure>'
    )


def _style() -> str:
    light, dark = (";".join(f"--{name}:{value}" for name, value in colours.items()) for colours in (LIGHT, DARK))
    return f":root{{{light}}}@media screen and (prefers-color-scheme: dark){{:root{{{dark}}}}}" + _asset("page.css")


def _asset(name: str) -> str:
    return Path(str(resources.files("orchestrator.page") / name)).read_text()
