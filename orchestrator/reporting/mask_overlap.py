"""How alike the masks of a comparison are: of two methods in one cell, and of one method after longer and longer warm-ups.

Two methods may be equally accurate with the same weights or with others; and where a longer warm-up no longer changes the mask,
waiting longer is in vain. Reads the sparse models of the trials, which takes PyTorch.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from orchestrator.reporting.aggregate import ConfigSummary
from orchestrator.reporting.cells import Cell
from orchestrator.reporting.comparison import Comparison
from orchestrator.reporting.comparison_tables import Block, Row
from orchestrator.state.sweep_state import SweepState
from orchestrator.storage.base import Storage
from orchestrator.storage.layout import trial_file
from trainables.records.file_names import MODEL

if TYPE_CHECKING:
    from trainables.pruning.masks import Masks

MasksOf = Callable[[str], "Masks | None"]  # trial key -> masks, None without a model file


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskOverlap:
    """The masks of the reference and another method in one cell, means over the seeds that both have.

    Attributes:
        overlap: weights that both keep over weights that either keeps.
        by_chance: the overlap of two random masks of these densities.
        widths: likeness of the layers' counts alone.
    """

    method: str
    cell: Cell
    overlap: float
    by_chance: float
    widths: float
    seeds: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Stability:
    """The reference's mask after a warm-up beside those after shorter ones, means over seeds.

    Attributes:
        overlap: with the mask after the next shorter warm-up.
        indicator: early pruning indicator: likeness of the layers' counts with all shorter warm-ups, at most five.
    """

    cell: Cell
    overlap: float
    indicator: float
    seeds: int


def masks_in(storage: Storage) -> MasksOf:
    """Reads each trial's masks once."""

    @cache
    def masks_of(key: str) -> Masks | None:
        from trainables.export.sparse_model import load_masks

        content = storage.read(trial_file(key, MODEL))
        try:
            return None if content is None else load_masks(content)
        except ValueError as error:
            print(f"left out: {trial_file(key, MODEL)} is damaged: {error}", file=sys.stderr)
            return None

    return masks_of


def likeness(comparison: Comparison, state: SweepState, masks_of: MasksOf) -> list[MaskOverlap]:
    """One line for every pair of the comparison whose model files are there."""
    from trainables.analysis.mask_overlap import layer_density_similarity, overlap
    from trainables.pruning.masks import num_kept

    found = []
    for pair in comparison.pairs:
        mine, theirs = (_by_seed(side, state, masks_of) for side in (pair.reference, pair.other))
        both = [(mine[seed], theirs[seed]) for seed in pair.seeds if seed in mine and seed in theirs]
        if both:
            first, second = both[0]
            size = sum(mask.numel() for mask in first.values())
            a, b = num_kept(first) / size, num_kept(second) / size
            found.append(
                MaskOverlap(
                    method=pair.method,
                    cell=pair.cell,
                    overlap=statistics.fmean(overlap(*masks) for masks in both),
                    by_chance=a * b / (a + b - a * b) if a + b else 1.0,
                    widths=statistics.fmean(layer_density_similarity(*masks) for masks in both),
                    seeds=len(both),
                )
            )
    return found


def stability(comparison: Comparison, state: SweepState, masks_of: MasksOf) -> list[Stability]:
    """The reference's warm-ups in ascending order, from the second on, by sparsity and other axes."""
    from trainables.analysis.mask_overlap import early_pruning_indicator, overlap

    chosen = {pair.cell: pair.reference for pair in comparison.pairs}
    groups: dict[tuple[float, str], list[Cell]] = {}
    for cell in sorted(chosen, key=lambda one: (one.sparsity, one.others, one.warmup_epochs)):
        groups.setdefault((cell.sparsity, cell.others), []).append(cell)
    found = []
    for cells in groups.values():
        by_seed = [_by_seed(chosen[cell], state, masks_of) for cell in cells]
        for index in range(1, len(cells)):
            history = by_seed[: index + 1]
            seeds = sorted(set.intersection(*(set(masks) for masks in history)))
            if seeds:
                found.append(
                    Stability(
                        cell=cells[index],
                        overlap=statistics.fmean(overlap(history[-1][seed], history[-2][seed]) for seed in seeds),
                        indicator=statistics.fmean(
                            early_pruning_indicator([masks[seed] for masks in history]) for seed in seeds
                        ),
                        seeds=len(seeds),
                    )
                )
    return found


def _by_seed(setting: ConfigSummary, state: SweepState, masks_of: MasksOf) -> dict[int, Masks]:
    found = {state.trials[key].config["seed"]: masks_of(key) for key in setting.keys}
    return {seed: masks for seed, masks in found.items() if masks is not None}


def blocks(reference: str, alike: list[MaskOverlap], stable: list[Stability]) -> list[Block]:
    """Both as tables."""

    def place(cell: Cell) -> tuple[str, ...]:
        return repr(cell.sparsity), str(cell.warmup_epochs), cell.others

    between = [
        Row((one.method, *place(one.cell), f"{one.overlap:.3f}", f"{one.by_chance:.3f}", f"{one.widths:.3f}", str(one.seeds)))
        for one in alike
    ]
    along = [Row((*place(one.cell), f"{one.overlap:.3f}", f"{one.indicator:.3f}", str(one.seeds))) for one in stable]
    axes = ("sparsity", "warm-up", "other")
    return [
        Block(f"masks of {reference} and", ("method", *axes, "overlap", "by chance", "layer widths", "n"), between),
        Block(f"masks of {reference} after longer warm-ups", (*axes, "overlap with the one before", "EPI", "n"), along),
    ]


REMARK = (
    "overlap: weights that both keep over weights that either keeps. Layer widths, and EPI over all shorter warm-ups: likeness "
    "of the counts of the layers alone (arXiv:2110.12007); near 1 waiting no longer changes how wide the layers are."
)


def to_json(alike: list[MaskOverlap], stable: list[Stability]) -> dict[str, Any]:
    return {"between": [asdict(one) for one in alike], "along_warmups": [asdict(one) for one in stable]}
