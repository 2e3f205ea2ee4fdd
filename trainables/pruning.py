"""Rounds of score and mask: gradients on seeded batches, the DRIVE score, fewer weights.

Scoring leaves parameters, buffers, gradients and train/eval modes as they were. Reads: scores.py, masks.py, schedules.py.
Read by: phases.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm

from trainables.config import TrialConfig
from trainables.data import Data, scoring_batches
from trainables.masks import Masks, apply_masks, flattened, keep_highest, survivors
from trainables.runtime import Runtime
from trainables.schedules import kept_after_round
from trainables.scores import drive_score, drive_terms, term_correlations

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
    batches = scoring_batches(data, config.training.batch_size, config.drive.score_batches, config.seed, round_)
    loss, grads = scoring_gradients(model, weights, batches, runtime)
    sizes = [weight.numel() for weight in weights.values()]
    before, kept = (_kept_after(index, config, sum(sizes)) for index in (round_ - 1, round_))
    alive = survivors(masks, before)
    terms = drive_terms(flattened(weights, alive), flattened(grads, alive))
    score = drive_score(terms, config.drive)
    kept_masks = keep_highest(score, masks, kept)
    apply_masks(weights, kept_masks)

    layer_counts = torch.stack([mask.count_nonzero() for mask in kept_masks.values()]).tolist()
    told = {"prune/sparsity": 1 - kept / sum(sizes), "prune/kept_weights": float(kept), "prune/loss": float(loss)}
    told["prune/min_layer_density"] = min(count / size for count, size in zip(layer_counts, sizes, strict=True))
    told["prune/emptied_layers"] = float(layer_counts.count(0))
    if round_ in correlation_rounds(config.rounds):
        for term, correlation in term_correlations(score, terms, config.seed).items():
            told[f"prune/rank_correlation_{term}"] = correlation
    return kept_masks, told


def _kept_after(round_: int, config: TrialConfig, prunable: int) -> int:
    """Weights kept after a round; before the first one all."""
    if round_ == 0:
        return prunable
    return kept_after_round(round_, config.rounds, config.sparsity, prunable, config.drive.density_schedule)


def scoring_gradients(
    model: nn.Module, weights: Mapping[str, Tensor], batches: Iterable[tuple[Tensor, Tensor]], runtime: Runtime
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean loss and its gradient by every prunable weight, BN with batch statistics, dropout off.

    Gradients are averaged over the batches before any absolute value is taken: the size of a mean gradient, not the mean
    of sizes. They are taken at the masked weights.
    """
    count = 0
    loss_sum: Tensor = torch.zeros(())
    sums: list[Tensor] = []
    # BN writes its running statistics into the copies.
    copies = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with only_batch_norm_in_train_mode(model):
        for images_BCHW, labels_B in batches:
            with runtime.autocast():
                logits_BK = torch.func.functional_call(model, copies, (runtime.arranged(images_BCHW),))
            loss = cross_entropy(logits_BK.float(), labels_B)
            grads = torch.autograd.grad(loss, list(weights.values()))
            sums = [total + grad for total, grad in zip(sums, grads, strict=True)] if sums else list(grads)
            loss_sum = loss.detach() + loss_sum.to(loss.device)
            count += 1
    return loss_sum / count, {name: total / count for name, total in zip(weights, sums, strict=True)}


@contextmanager
def only_batch_norm_in_train_mode(model: nn.Module) -> Iterator[None]:
    """Inside, BN layers use batch statistics and everything else is in eval mode; afterwards all is as before."""
    modes = {module: module.training for module in model.modules()}
    try:
        for module in modes:
            module.training = isinstance(module, _BatchNorm)
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def correlation_rounds(rounds: int) -> set[int]:
    """At most ten rounds, evenly spread, first and last among them."""
    told = min(rounds, MOST_CORRELATIONS)
    return {rounds} if told == 1 else {1 + round(i * (rounds - 1) / (told - 1)) for i in range(told)}
