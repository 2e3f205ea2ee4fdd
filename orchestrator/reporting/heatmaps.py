"""Grids of a sweep as pictures: accuracy over warm-up and iterations, or over warm-up and methods."""

from __future__ import annotations

import io

from orchestrator.reporting.heatmap_grids import Grid

DPI = 150
SHOWN_DPI = 100  # on a page: all maps of a report at one scale, whatever their size


def heat_map(grid: Grid, dense: float | None) -> bytes:
    """PNG of mean test accuracy; a frame marks the setting that validation chose, white fields have no trial."""
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
    for place, field in grid.fields.items():
        assert field.setting.test is not None
        values[place] = field.setting.test.mean
    image = axes.imshow(values, cmap="viridis", aspect="auto")
    middle = float(np.nanmin(values) + np.nanmax(values)) / 2
    for (row, column), field in grid.fields.items():
        test = field.setting.test
        assert test is not None
        lines = (
            [f"{test.mean:.3f}"]
            + ([f"± {test.std:.3f}"] if test.std is not None else [])
            + ([field.note] if field.note else [])
        )
        color = "black" if test.mean > middle else "white"
        axes.text(column, row, "\n".join(lines), ha="center", va="center", color=color, fontsize=8)
        if field.framed:
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
    figure.savefig(content, format="png")
    return content.getvalue()


def shown_width(png: bytes) -> int:
    """Width in CSS pixels at which a page shows a picture of `heat_map`."""
    return int.from_bytes(png[16:20], "big") * SHOWN_DPI // DPI
