"""Settings -> methods side by side: what every method offers in one cell, and its best there.

A cell is a sparsity, a warm-up and the other axes that all methods share. Within a cell a method may have several settings:
iteration counts and options of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.reporting.aggregate import ConfigSummary, best_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """Where methods can be compared.

    Attributes:
        others: the other axes that all methods share, as `key=value`; empty in a plain sweep.
    """

    sparsity: float
    warmup_epochs: int
    others: str

    def __str__(self) -> str:
        return f"sparsity {self.sparsity!r}, warm-up {self.warmup_epochs}" + (f", {self.others}" if self.others else "")


def by_cell(settings: list[ConfigSummary]) -> dict[Cell, dict[str, list[ConfigSummary]]]:
    """Cell -> method -> its settings there, in the order of `settings`; the dense baseline is in no cell."""
    cells: dict[Cell, dict[str, list[ConfigSummary]]] = {}
    for one in settings:
        if not one.is_dense:
            config = one.config
            cell = Cell(sparsity=config.sparsity, warmup_epochs=config.warmup_epochs, others=one.shared_options)
            cells.setdefault(cell, {}).setdefault(config.method, []).append(one)
    return cells


def chosen(members: list[ConfigSummary]) -> ConfigSummary | None:
    """The best by mean validation accuracy; None if there are several and no validation images to choose by."""
    return members[0] if len(members) == 1 else best_of(members)
