"""The description of a sweep's run in MLflow: the recommendations first, since MLflow shows a few lines and hides the rest."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.recommendation.recommendation import Recommendation
from orchestrator.recommendation.sentences import details_of_all, sentence
from orchestrator.state.sweep_state import SweepState
from trainables.wording import as_markdown, counted

LONGEST = 5000  # characters that every MLflow takes
REPORT = " Figures and all numbers: `report.html` among the artifacts."


def description(state: SweepState, advice: Sequence[Recommendation], search: Sequence[str], plan: str, *, report: bool) -> str:
    """Markdown.

    Args:
        search: lines on how a search went.
        plan: what the sweep is, in Markdown.
        report: the run has the report among its artifacts.
    """
    rest = _joined(_progress(state) + (REPORT if report else ""), plan)
    sentences = [sentence(one) for one in advice]
    all_details = zip(advice, details_of_all(advice), strict=True)
    more = [f"{one.name}: {line}" if len(advice) > 1 else line for one, lines in all_details for line in lines]
    details_part = [f"**How sure that is, and what else was seen:**\n\n{_list(more)}"] if more else []
    search_part = [f"**The search:**\n\n{_list(search)}"] if search else []
    for parts in ([*details_part, *search_part], search_part, []):
        if len(text := _joined(_list(sentences), *parts, rest)) <= LONGEST:
            return text
    shown = len(sentences)
    while len(text) > LONGEST and shown:
        shown -= 1
        text = _joined(_list(sentences[:shown]), _left_out(len(sentences) - shown), rest)
    return text


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {as_markdown(line.strip())}" for line in lines)


def _joined(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)


def _left_out(number: int) -> str:
    return f"{counted(number, 'more group')} in the report."


def _progress(state: SweepState) -> str:
    counts = state.counts()
    parts = [f"{counts['finished']} of {len(state.trials)} trials have finished"]
    if state.stopped_early:
        parts.append(f"{state.stopped_early} were stopped early")
    if counts["failed"]:
        parts.append(f"{counts['failed']} failed")
    return f"{', '.join(parts)}."
