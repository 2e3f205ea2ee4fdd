"""Rounds of score and mask: the method's scores, fewer weights.

Scoring leaves parameters, buffers, gradients and train/eval modes as they were. Reads: methods.py, masks.py, schedules.py.
Read by: phases.py.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trainables.config import TrialConfig
from trainables.data import Data
from trainables.masks import Masks, apply_masks, keep_highest, survivors
from trainables.method_config import DensitySchedule
from trainables.methods import Subject, scored
from trainables.runtime import Runtime
from trainables.schedules import kept_after_round
from trainables.scores import term_correlations

MOST_CORRELATIONS = 10  # rounds of one trial


def prune_round(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    masks: Masks,
    data: Data,
    config: TrialConfig,
    round_: int,
    runtime: Runtime,
) -> tuple[Masks, dict[str, float]]:
    """The masks after round `round_` (1-based), already applied to the weights, and what there is to tell about the round.

    Raises:
        NonFiniteError: a score is infinite or not a number.
    """
    sizes = [weight.numel() for weight in weights.values()]
    before, kept = (_kept_after(index, config, sum(sizes)) for index in (round_ - 1, round_))
    alive = survivors(masks, before)
    found = scored(
        Subject(
            model=model,
            weights=weights,
            masks=masks,
            alive=alive,
            keep=kept,
            data=data,
            config=config,
            round_=round_,
            runtime=runtime,
        )
    )
    kept_masks = keep_highest(found.scores, masks, kept)
    apply_masks(weights, kept_masks)

    layer_counts = torch.stack([mask.count_nonzero() for mask in kept_masks.values()]).tolist()
    told = {"prune/sparsity": 1 - kept / sum(sizes), "prune/kept_weights": float(kept)}
    if found.loss is not None:
        told["prune/loss"] = float(found.loss)
    told["prune/min_layer_density"] = min(count / size for count, size in zip(layer_counts, sizes, strict=True))
    told["prune/emptied_layers"] = float(layer_counts.count(0))
    if found.terms and round_ in correlation_rounds(config.rounds):
        for term, correlation in term_correlations(found.scores, found.terms, config.seed).items():
            told[f"prune/rank_correlation_{term}"] = correlation
    return kept_masks, told


def _kept_after(round_: int, config: TrialConfig, prunable: int) -> int:
    """Weights kept after a round; before the first one all."""
    if round_ == 0:
        return prunable
    # What is pruned in one round has no schedule.
    schedule: DensitySchedule = getattr(getattr(config, config.method, None), "density_schedule", "exponential")
    return kept_after_round(round_, config.rounds, config.sparsity, prunable, schedule)


def correlation_rounds(rounds: int) -> set[int]:
    """At most ten rounds, evenly spread, first and last among them."""
    told = min(rounds, MOST_CORRELATIONS)
    return {rounds} if told == 1 else {1 + round(i * (rounds - 1) / (told - 1)) for i in range(told)}
