"""Heat maps of a sweep: accuracy over warm-up and iterations, one picture per sparsity. Read by: report.py."""

from __future__ import annotations

import io

from orchestrator.results import Setting


def heat_map(title: str, settings: list[Setting], dense: float | None) -> bytes:
    """PNG of mean test accuracy; a frame marks the setting that validation chose, white fields have no trial."""
    import matplotlib

    matplotlib.use("agg")
    import numpy as np
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    warmups = sorted({setting.config.warmup_epochs for setting in settings})
    rounds = sorted({setting.config.prune_iterations for setting in settings})
    values = np.full((len(rounds), len(warmups)), np.nan)
    figure = Figure(figsize=(1.8 + 1.15 * len(warmups), 1.7 + 0.75 * len(rounds)), dpi=150, layout="constrained")
    axes = figure.subplots()
    for setting in settings:
        assert setting.test is not None
        row, column = rounds.index(setting.config.prune_iterations), warmups.index(setting.config.warmup_epochs)
        values[row, column] = setting.test.mean
    image = axes.imshow(values, cmap="viridis", aspect="auto", origin="lower")
    middle = float(np.nanmin(values) + np.nanmax(values)) / 2
    for setting in settings:
        assert setting.test is not None
        row, column = rounds.index(setting.config.prune_iterations), warmups.index(setting.config.warmup_epochs)
        spread = "" if setting.test.std is None else f"\n± {setting.test.std:.3f}"
        color = "black" if setting.test.mean > middle else "white"
        axes.text(column, row, f"{setting.test.mean:.3f}{spread}", ha="center", va="center", color=color, fontsize=8)
        if setting.best:
            frame = Rectangle((column - 0.46, row - 0.44), 0.92, 0.88, fill=False, edgecolor="crimson", linewidth=2.5)
            axes.add_patch(frame)
    axes.set_xticks(range(len(warmups)), [str(epochs) for epochs in warmups])
    axes.set_yticks(range(len(rounds)), [str(count) for count in rounds])
    axes.set_xlabel("warm-up epochs")
    axes.set_ylabel("pruning iterations")
    reference = "" if dense is None else f"   (dense {dense:.3f})"
    axes.set_title(f"{title}{reference}", fontsize=10)
    figure.colorbar(image, ax=axes, label="test accuracy")
    figure.text(0.01, 0.005, "framed: chosen by validation accuracy", fontsize=6, color="crimson")
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()
