"""How much the masks of a comparison overlap: those of two methods in one cell, and those of one method after longer warm-ups.

Two methods may be equally accurate with the same weights or with others. If a longer warm-up leaves the mask unchanged, it is
not worth its cost. Reads the sparse models of the trials, which imports PyTorch.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from orchestrator.reporting.aggregate import ConfigSummary
from orchestrator.reporting.comparison import Comparison
from orchestrator.reporting.comparison_cells import Cell
from orchestrator.reporting.comparison_tables import ResultTable, Row
from orchestrator.state.sweep_state import SweepState
from orchestrator.storage.base import Storage
from orchestrator.storage.layout import trial_file
from trainables.config.trial import label_order
from trainables.records.file_names import MODEL

if TYPE_CHECKING:
    from trainables.pruning.masks import Masks

MasksOf = Callable[[str], "Masks | None"]  # trial key -> masks, None without a model file


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskOverlap:
    """The masks of the reference and another method in one cell, means over the seeds that both have.

    Attributes:
        overlap: weights that both keep over weights that either keeps.
        expected_overlap: the overlap of two random masks of these densities.
        density_similarity: similarity of the layers' counts alone.
    """

    method: str
    cell: Cell
    overlap: float
    expected_overlap: float
    density_similarity: float
    seeds: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Stability:
    """The reference's mask after a warm-up beside those after shorter ones, means over seeds.

    Attributes:
        overlap: with the mask after the next shorter warm-up.
        indicator: early pruning indicator: similarity of the layers' counts to all shorter warm-ups, at most five.
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
            print(f"excluded: {trial_file(key, MODEL)} is damaged: {error}", file=sys.stderr)
            return None

    return masks_of


def mask_overlaps(comparison: Comparison, state: SweepState, masks_of: MasksOf) -> list[MaskOverlap]:
    """One line for every pair of the comparison whose model files are there."""
    from trainables.analysis.mask_overlap import layer_density_similarity, overlap
    from trainables.pruning.masks import num_kept

    overlaps = []
    for pair in comparison.pairs:
        mine, theirs = (_by_seed(side, state, masks_of) for side in (pair.reference, pair.other))
        both = [(mine[seed], theirs[seed]) for seed in pair.seeds if seed in mine and seed in theirs]
        if both:
            first, second = both[0]
            size = sum(mask.numel() for mask in first.values())
            a, b = num_kept(first) / size, num_kept(second) / size
            overlaps.append(
                MaskOverlap(
                    method=pair.method,
                    cell=pair.cell,
                    overlap=statistics.fmean(overlap(*masks) for masks in both),
                    expected_overlap=a * b / (a + b - a * b) if a + b else 1.0,
                    density_similarity=statistics.fmean(layer_density_similarity(*masks) for masks in both),
                    seeds=len(both),
                )
            )
    return overlaps


def stability(comparison: Comparison, state: SweepState, masks_of: MasksOf) -> list[Stability]:
    """The reference's warm-ups in ascending order, from the second on, by sparsity and other axes."""
    from trainables.analysis.mask_overlap import early_pruning_indicator, overlap

    chosen = {pair.cell: pair.reference for pair in comparison.pairs}
    groups: dict[tuple[float, str], list[Cell]] = {}
    for cell in sorted(chosen, key=lambda one: (one.sparsity, one.extra_axes, label_order(one.warmup_epochs))):
        groups.setdefault((cell.sparsity, cell.extra_axes), []).append(cell)
    lines = []
    for cells in groups.values():
        by_seed = [_by_seed(chosen[cell], state, masks_of) for cell in cells]
        for index in range(1, len(cells)):
            history = by_seed[: index + 1]
            seeds = sorted(set.intersection(*(set(masks) for masks in history)))
            if seeds:
                lines.append(
                    Stability(
                        cell=cells[index],
                        overlap=statistics.fmean(overlap(history[-1][seed], history[-2][seed]) for seed in seeds),
                        indicator=statistics.fmean(
                            early_pruning_indicator([masks[seed] for masks in history]) for seed in seeds
                        ),
                        seeds=len(seeds),
                    )
                )
    return lines


def _by_seed(setting: ConfigSummary, state: SweepState, masks_of: MasksOf) -> dict[int, Masks]:
    by_seed = {state.trials[key].config["seed"]: masks_of(key) for key in setting.keys}
    return {seed: masks for seed, masks in by_seed.items() if masks is not None}


def tables_of(reference: str, overlaps: list[MaskOverlap], stable: list[Stability]) -> list[ResultTable]:
    """Both as tables."""

    def position(cell: Cell) -> tuple[str, ...]:
        return repr(cell.sparsity), str(cell.warmup_epochs), cell.extra_axes

    between = [
        Row(
            (
                one.method,
                *position(one.cell),
                f"{one.overlap:.3f}",
                f"{one.expected_overlap:.3f}",
                f"{one.density_similarity:.3f}",
                str(one.seeds),
            )
        )
        for one in overlaps
    ]
    along = [Row((*position(one.cell), f"{one.overlap:.3f}", f"{one.indicator:.3f}", str(one.seeds))) for one in stable]
    axes = ("sparsity", "warm-up", "other")
    return [
        ResultTable(f"masks of {reference} and", ("method", *axes, "overlap", "by chance", "layer widths", "n"), between),
        ResultTable(f"masks of {reference} after longer warm-ups", (*axes, "overlap with the one before", "EPI", "n"), along),
    ]


NOTE = (
    "overlap: weights that both keep over weights that either keeps. Layer widths, and EPI over all shorter warm-ups: "
    "similarity of the counts of the layers alone (arXiv:2110.12007); near 1 a longer warm-up no longer changes "
    "the layers' counts."
)


def to_json(overlaps: list[MaskOverlap], stable: list[Stability]) -> dict[str, Any]:
    return {
        "between": [
            {
                "method": one.method,
                "cell": one.cell.to_json(),
                "overlap": one.overlap,
                "by_chance": one.expected_overlap,
                "widths": one.density_similarity,
                "seeds": one.seeds,
            }
            for one in overlaps
        ],
        "along_warmups": [asdict(one) | {"cell": one.cell.to_json()} for one in stable],
    }
