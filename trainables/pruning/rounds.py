"""Rounds of score and mask: the method's scores, fewer weights.

Scoring leaves parameters, buffers, gradients and train/eval modes as they were.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trainables.config.methods import DensitySchedule
from trainables.config.trial import TrialConfig, final_count
from trainables.data.splits import Data
from trainables.pruning.masks import Masks, apply_masks, surviving_indices, topk_masks
from trainables.pruning.rank_correlation import term_correlations
from trainables.pruning.scorers import ScoringContext, scored
from trainables.pruning.sparsity_distributions import LayerCounts
from trainables.pruning.sparsity_schedules import kept_after_round
from trainables.runtime.device import Runtime

LayerScores = dict[str, dict[str, float]]  # by layer
MOST_CORRELATIONS = 10  # rounds of one trial


def prune_round(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    masks: Masks,
    data: Data,
    config: TrialConfig,
    round_: int,
    runtime: Runtime,
    counts_of: LayerCounts = lambda key: None,
) -> tuple[Masks, dict[str, float], LayerScores]:
    """The masks after round `round_` (1-based), already applied to the weights; what there is to tell about the round; and
    after the last one the mean and the standard deviation of every layer's scores, over the weights that it began with.

    Raises:
        NonFiniteError: a score is infinite or not a number.
    """
    sizes = [weight.numel() for weight in weights.values()]
    before, kept = (_kept_after(index, config, sum(sizes)) for index in (round_ - 1, round_))
    alive = surviving_indices(masks, before)
    found = scored(
        ScoringContext(
            model=model,
            weights=weights,
            masks=masks,
            alive=alive,
            keep=kept,
            data=data,
            config=config,
            round_=round_,
            runtime=runtime,
            counts_of=counts_of,
        )
    )
    scores = -found.scores if config.sanity.invert else found.scores
    kept_masks = topk_masks(scores, masks, kept)
    apply_masks(weights, kept_masks)

    told = mask_points(kept_masks)
    if found.loss is not None:
        told["prune/loss"] = float(found.loss)
    if found.terms and round_ in correlation_rounds(config.rounds):
        for term, correlation in term_correlations(found.scores, found.terms, config.seed).items():
            told[f"prune/rank_correlation_{term}"] = correlation
    return kept_masks, told, _layer_scores(found.scores, masks) if round_ == config.rounds else {}


def mask_points(masks: Masks) -> dict[str, float]:
    """What there is to tell about masks: sparsity, kept weights, the lowest density of a layer, and emptied layers."""
    sizes = [mask.numel() for mask in masks.values()]
    counts = torch.stack([mask.count_nonzero() for mask in masks.values()]).tolist()  # waits for the device once
    return {
        "prune/sparsity": 1 - sum(counts) / sum(sizes),
        "prune/kept_weights": float(sum(counts)),
        "prune/min_layer_density": min(count / size for count, size in zip(counts, sizes, strict=True)),
        "prune/emptied_layers": float(counts.count(0)),
    }


def _layer_scores(scores_S: Tensor, masks: Masks) -> LayerScores:
    """Mean and sample standard deviation of the scores by layer; an emptied layer has none, one weight has no deviation."""
    parts = scores_S.split([int(mask.count_nonzero()) for mask in masks.values()])
    return {
        name: {"score_mean": float(part.double().mean()), "score_std": float(part.double().std()) if len(part) > 1 else 0.0}
        for name, part in zip(masks, parts, strict=True)
        if len(part)
    }


def _kept_after(round_: int, config: TrialConfig, prunable: int) -> int:
    """Weights kept after a round; before the first one all."""
    if round_ == 0:
        return prunable
    if config.method == "imp" and not config.imp.exact:
        return final_count(1 - (1 - config.imp.fraction) ** round_, prunable)
    # What is pruned in one round has no schedule.
    schedule: DensitySchedule = getattr(getattr(config, config.method, None), "density_schedule", "exponential")
    return kept_after_round(round_, config.rounds, config.sparsity, prunable, schedule)


def correlation_rounds(rounds: int) -> set[int]:
    """At most ten rounds, evenly spread, first and last among them."""
    told = min(rounds, MOST_CORRELATIONS)
    return {rounds} if told == 1 else {1 + round(i * (rounds - 1) / (told - 1)) for i in range(told)}
