"""Pruning rounds: score the surviving weights by the method, keep the highest, apply the masks.

Scoring does not change parameters, buffers, gradients or train/eval modes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from trainables.config.trial import TrialConfig
from trainables.data.batches import class_balanced_batches, scoring_batches
from trainables.data.splits import Data
from trainables.pruning.masks import Masks, apply_masks, surviving_indices
from trainables.pruning.rank_correlation import term_correlations
from trainables.pruning.scoring import Batch, Scores, ScoringContext, score
from trainables.pruning.selection import Selection, WeightSelection
from trainables.pruning.shared_masks import masks_of_first
from trainables.pruning.sparsity_distributions import LayerCounts
from trainables.runtime.device import Runtime
from trainables.runtime.group import group_of

LayerScores = dict[str, dict[str, float]]  # by layer
MAX_CORRELATIONS = 10  # rounds of one trial


def prune_round(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    masks: Masks,
    data: Data,
    config: TrialConfig,
    round_: int,
    runtime: Runtime,
    counts_of: LayerCounts = lambda key: None,
    selection: Selection | None = None,
) -> tuple[Masks, dict[str, float], LayerScores]:
    """Runs pruning round `round_` (1-based) and applies its masks to the weights.

    Args:
        counts_of: kept weights by layer of another trial, by its key.
        selection: of single weights by default.

    Returns:
        The masks; the metrics of the round; and after the last round the mean and standard deviation of every layer's scores,
        over the weights that survived before the round.

    Raises:
        NonFiniteError: a score is infinite or not a number.
    """
    selection = selection or WeightSelection()
    result = score_round(model, weights, masks, data, config, round_, runtime, counts_of, selection)
    scores = -result.scores if config.sanity.invert else result.scores
    kept_masks = masks_of_first(selection.select(scores, masks, config, round_), group_of(runtime))
    apply_masks(weights, kept_masks)

    metrics = mask_metrics(kept_masks) | selection.metrics(kept_masks, config)
    if result.loss is not None:
        metrics["prune/loss"] = float(result.loss)
    if result.terms and round_ in correlation_rounds(config.rounds):
        for term, correlation in term_correlations(result.scores, result.terms, config.seed).items():
            metrics[f"prune/rank_correlation_{term}"] = correlation
    of_weights = round_ == config.rounds and not config.pruning.scores_channels
    return kept_masks, metrics, _layer_scores(result.scores, masks) if of_weights else {}


def score_round(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    masks: Masks,
    data: Data,
    config: TrialConfig,
    round_: int,
    runtime: Runtime,
    counts_of: LayerCounts = lambda key: None,
    selection: Selection | None = None,
) -> Scores:
    """The scores of the surviving weights in pruning round `round_`; arguments as above."""
    selection = selection or WeightSelection()
    context = ScoringContext(
        model=model,
        weights=weights,
        masks=masks,
        surviving=surviving_indices(masks, selection.survivors(masks, config, round_)),
        keep=selection.keep(masks, config, round_),
        config=config,
        round_=round_,
        image_shape=data.image_shape,
        runtime=runtime,
        train_images=len(data.train),
        draw_batches=partial(_draw_batches, data, config, round_),
        counts_of=counts_of,
        units=selection.units,
    )
    return score(context)


def _draw_batches(
    data: Data, config: TrialConfig, round_: int, images_per_class: int | None, score_batches: int
) -> Iterator[Batch]:
    if images_per_class is not None:
        return class_balanced_batches(data, config.training.batch_size, images_per_class, config.seed, round_)
    return scoring_batches(data, config.training.batch_size, score_batches, config.seed, round_)


def mask_metrics(masks: Masks) -> dict[str, float]:
    """Sparsity, kept weights, the lowest density of a layer, and the number of collapsed layers."""
    sizes = [mask.numel() for mask in masks.values()]
    counts = torch.stack([mask.count_nonzero() for mask in masks.values()]).tolist()  # synchronizes with the device once
    return {
        "prune/sparsity": 1 - sum(counts) / sum(sizes),
        "prune/kept_weights": float(sum(counts)),
        "prune/min_layer_density": min(count / size for count, size in zip(counts, sizes, strict=True)),
        "prune/emptied_layers": float(counts.count(0)),
    }


def _layer_scores(scores_S: Tensor, masks: Masks) -> LayerScores:
    """Mean and sample standard deviation (0 for one weight) of the scores in each layer that has surviving weights."""
    layers = scores_S.split([int(mask.count_nonzero()) for mask in masks.values()])
    return {
        name: {
            "score_mean": float(scores.double().mean()),
            "score_std": float(scores.double().std()) if len(scores) > 1 else 0.0,
        }
        for name, scores in zip(masks, layers, strict=True)
        if len(scores)
    }


def correlation_rounds(rounds: int) -> set[int]:
    """At most MAX_CORRELATIONS rounds, evenly spread, including the first and the last."""
    count = min(rounds, MAX_CORRELATIONS)
    return {rounds} if count == 1 else {1 + round(i * (rounds - 1) / (count - 1)) for i in range(count)}
