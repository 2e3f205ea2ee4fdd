"""Heat maps of a sweep as PNG: accuracy over warm-up and iterations, or over warm-up and methods."""

from __future__ import annotations

import io

from orchestrator.reporting.aggregate import ConfigSummary, baseline_of
from orchestrator.reporting.heatmap_grids import Grid, grids

DPI = 150


def heat_maps(summaries: list[ConfigSummary]) -> dict[str, bytes]:
    """File name -> PNG of every heat map with more than one cell."""
    maps = {}
    for grid in grids(summaries):
        name = "heatmap-" + grid.title.replace("sparsity ", "s").replace(", ", "-").replace("/", "-")
        dense = baseline_of(grid.settings[0], summaries)
        maps[f"{name}.png"] = heat_map(grid, dense.test.mean if dense and dense.test else None)
    return maps


def heat_map(grid: Grid, dense: float | None) -> bytes:
    """PNG of mean test accuracy; a frame marks the configuration selected by validation accuracy, white cells have no trial."""
    import matplotlib

    matplotlib.use("agg")
    import numpy as np
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    values = np.full((len(grid.rows), len(grid.warmups)), np.nan)
    margin = 0.6 + 0.07 * max(len(label) for label in grid.rows)
    size = (margin + 0.9 + 1.15 * len(grid.warmups), 1.7 + 0.75 * len(grid.rows))
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    axes = figure.subplots()
    for index, cell in grid.cells.items():
        assert cell.setting.test is not None
        values[index] = cell.setting.test.mean
    image = axes.imshow(values, cmap="viridis", aspect="auto")
    middle = float(np.nanmin(values) + np.nanmax(values)) / 2
    for (row, column), cell in grid.cells.items():
        test = cell.setting.test
        assert test is not None
        lines = (
            [f"{test.mean:.3f}"] + ([f"± {test.std:.3f}"] if test.std is not None else []) + ([cell.note] if cell.note else [])
        )
        color = "black" if test.mean > middle else "white"
        axes.text(column, row, "\n".join(lines), ha="center", va="center", color=color, fontsize=8)
        if cell.selected:
            frame = Rectangle((column - 0.46, row - 0.44), 0.92, 0.88, fill=False, edgecolor="crimson", linewidth=2.5)
            axes.add_patch(frame)
    axes.set_xticks(range(len(grid.warmups)), [str(epochs) for epochs in grid.warmups])
    axes.set_yticks(range(len(grid.rows)), grid.rows)
    axes.set_xlabel("warm-up epochs")
    axes.set_ylabel("" if grid.row_axis == "method" else f"pruning {grid.row_axis}")
    reference = "" if dense is None else f"   (dense {dense:.3f})"
    axes.set_title(f"{grid.title}{reference}", fontsize=10)
    figure.colorbar(image, ax=axes, label="test accuracy")
    figure.supxlabel("framed: chosen by validation accuracy", x=0.01, ha="left", fontsize=6, color="crimson")
    content = io.BytesIO()
    figure.savefig(content, format="png", bbox_inches="tight")  # titles may be wider
    return content.getvalue()
