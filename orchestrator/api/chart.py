"""A figure of a sweep as an object that a notebook shows, and that can be written to a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import UserError

if TYPE_CHECKING:
    from orchestrator.figures.figure import Figure
    from orchestrator.reporting.sweep_results import SweepResults

VEGA_LITE = "application/vnd.vegalite.v6+json"


@dataclass(frozen=True)
class Chart:
    """One figure."""

    figure: Figure

    @property
    def title(self) -> str:
        return self.figure.title

    @property
    def description(self) -> str:
        """What it shows, in words."""
        return self.figure.description

    @property
    def spec(self) -> dict[str, Any]:
        """The Vega-Lite specification, with its data."""
        from orchestrator.figures.render import file_spec

        return file_spec(self.figure)

    def save(self, file: str | Path) -> None:
        """Writes it as what the file's ending says: .png, .svg, or .json for the specification.

        Raises:
            SweepError: the ending is another one.
        """
        from orchestrator.figures.render import png, svg

        formats: dict[str, Callable[[], bytes]] = {
            ".png": lambda: png(self.figure),
            ".svg": lambda: svg(self.figure),
            ".json": lambda: json.dumps(self.spec, indent=1).encode(),
        }
        path = Path(file)
        if path.suffix not in formats:
            message = f"the file of a chart must end in {', '.join(formats)}, got {str(file)!r}"
            raise UserError(message, "choose one of them", code="format-unknown")
        path.write_bytes(formats[path.suffix]())

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        """Vega-Lite where the notebook draws it, else an image."""
        from orchestrator.figures.render import svg

        return {VEGA_LITE: self.spec, "image/svg+xml": svg(self.figure).decode(), "text/plain": self.description}


def heat_map(results: SweepResults, sparsity: float | None, split: str) -> Chart:
    """See `Sweep.heat_map`."""
    from orchestrator.figures.heat_maps import file_part, maps_of_test, maps_of_validation
    from orchestrator.reporting.heatmap_grids import grids

    figures = maps_of_test(results) if split == "test" else maps_of_validation(results)
    by_grid = {
        grid.title: (grid.settings[0].config.sparsity, figure)
        for grid in grids(list(results.settings))
        for figure in figures
        if figure.name.endswith(f"-{file_part(grid.title)}")
    }
    fitting = {title: figure for title, (value, figure) in by_grid.items() if sparsity in (None, value)}
    if len(fitting) != 1:
        known = "; ".join(by_grid) or "none, since no two settings have results"
        problem = "several are left" if fitting else "there is none"
        message = f"heat_map: sparsity must name one heat map of sweep {results.name!r}, got {sparsity!r}: {problem}"
        raise UserError(message, f"heat maps: {known}", code="heat-map-ambiguous")
    return Chart(next(iter(fitting.values())))
