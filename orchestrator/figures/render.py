"""Figures for a page, and as PNG and SVG: drawn by Vega-Lite, without a browser or a network."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from orchestrator.figures.figure import CONTAINER, Figure
from orchestrator.figures.theme import CONFIG, LIGHT, with_colours
from trainables.wording import without_controls

FILE_WIDTH = 560  # pixels of a figure that has no surroundings; a PNG has twice as many
FILE_PADDING = 10
PNG_SCALE = 2.0
VEGA_LITE = "6.4"


def page_spec(figure: Figure) -> dict[str, Any]:
    """What a page hands to the library that draws it; its expressions take no line separators in texts."""
    spec: dict[str, Any] = _without_controls({**figure.spec, "description": figure.description, "config": CONFIG})
    return spec


def _without_controls(part: Any) -> Any:
    """A part of a specification in which control characters of all texts are escapes."""
    if isinstance(part, dict):
        return {name: _without_controls(value) for name, value in part.items()}
    if isinstance(part, list):
        return [_without_controls(value) for value in part]
    return without_controls(part) if isinstance(part, str) else part


def png(figure: Figure) -> bytes:
    import vl_convert

    return bytes(vl_convert.vegalite_to_png(file_spec(figure), vl_version=VEGA_LITE, scale=PNG_SCALE))


def svg(figure: Figure) -> bytes:
    """An image with its text alternative."""
    import vl_convert

    image = str(vl_convert.vegalite_to_svg(file_spec(figure), vl_version=VEGA_LITE))
    head, end, drawing = image.partition(">")
    texts = f"<title>{escape(figure.title)}</title><desc>{escape(figure.description)}</desc>"
    return f'{head} role="img"{end}{texts}{drawing}'.encode()


def file_spec(figure: Figure) -> dict[str, Any]:
    """With a width, a title and the colours of a light scheme in place of those of the page."""
    spec = page_spec(figure) | {"title": figure.title}
    if spec.get("width") == CONTAINER:
        spec["width"] = FILE_WIDTH
    settled: dict[str, Any] = json.loads(with_colours(json.dumps(spec), LIGHT))
    settled["config"] = settled["config"] | {"background": LIGHT["paper"], "padding": FILE_PADDING}
    return settled
