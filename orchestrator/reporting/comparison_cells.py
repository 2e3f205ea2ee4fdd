"""Groups configurations into cells, in which methods are compared.

A cell is a sparsity, a warm-up and the other axes that all methods share. Within a cell a method may have several
configurations, which differ in iterations and in options of the method.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orchestrator.reporting.aggregate import ConfigSummary, best_of
from trainables.config.trial import Label


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """Configurations that differ in the method alone, and in what is the method's.

    Attributes:
        warmup_epochs: a number, or auto.
        extra_axes: the other axes that all methods share, as `key=value`; empty in a plain sweep.
    """

    sparsity: float
    warmup_epochs: Label
    extra_axes: str

    def to_json(self) -> dict[str, Any]:
        return {"sparsity": self.sparsity, "warmup_epochs": self.warmup_epochs, "others": self.extra_axes}

    def __str__(self) -> str:
        return f"sparsity {self.sparsity!r}, warm-up {self.warmup_epochs}" + (f", {self.extra_axes}" if self.extra_axes else "")


def by_cell(settings: list[ConfigSummary]) -> dict[Cell, dict[str, list[ConfigSummary]]]:
    """Cell -> method -> its configurations, in the order of `settings`; the dense baseline is in no cell."""
    cells: dict[Cell, dict[str, list[ConfigSummary]]] = {}
    for one in settings:
        if not one.is_dense:
            config = one.config
            cell = Cell(sparsity=config.sparsity, warmup_epochs=config.warmup_label, extra_axes=one.shared_options)
            cells.setdefault(cell, {}).setdefault(config.method, []).append(one)
    return cells


def best_in_cell(members: list[ConfigSummary]) -> ConfigSummary | None:
    """The best by mean validation accuracy; None if there are several and no validation images to choose by."""
    return members[0] if len(members) == 1 else best_of(members)
