"""Automatic iterations: the number is doubled until twice as many hardly change the mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from trainables.analysis.mask_overlap import corrected_overlap
from trainables.config.automatic import ITERATIONS, Choice
from trainables.config.metric_names import CHOSEN_ITERATIONS
from trainables.config.trial import IterationsConfig, TrialConfig
from trainables.data.splits import Data
from trainables.models.prunable import prunable_weights
from trainables.pruning.masks import Masks, full_masks
from trainables.pruning.rounds import prune_round
from trainables.pruning.selection import Selection
from trainables.pruning.sparsity_distributions import LayerCounts
from trainables.runtime.device import Runtime
from trainables.runtime.seeding import unchanged_random_numbers
from trainables.trial.checkpoint import TrialState


@dataclass(frozen=True, kw_only=True)
class ChosenIterations:
    """The number of iterations, with the chance-corrected overlap of the masks of n and 2n iterations, by n."""

    choice: Choice
    agreement: dict[int, float]


def choose_iterations(
    model: nn.Module,
    data: Data,
    config: TrialConfig,
    runtime: Runtime,
    counts_of: LayerCounts = lambda key: None,
    selection: Selection | None = None,
    after_round: Callable[[], None] = lambda: None,
) -> ChosenIterations:
    """The smallest power of two that prunes like twice as many iterations, or the largest up to `prune_iterations`.

    In the end the weights are as before, and so is the state of PyTorch's random numbers.

    Args:
        selection: of single weights by default.
        after_round: may raise to stop; the model is pruned then.

    Raises:
        NonFiniteError: a score is infinite or not a number.
    """
    most, threshold = config.prune_iterations, config.iterations.threshold
    weights = prunable_weights(model, config.prunable.exclude)
    before = {name: weight.detach().clone() for name, weight in weights.items()}

    def mask_after(rounds: int) -> Masks:
        one = replace(config, prune_iterations=rounds, iterations=IterationsConfig())
        masks = full_masks(weights)
        for round_ in range(1, rounds + 1):
            masks, _, _ = prune_round(model, weights, masks, data, one, round_, runtime, counts_of, selection)
            after_round()
        _restore(weights, before)
        return masks

    agreement: dict[int, float] = {}
    with unchanged_random_numbers(runtime.device):
        rounds, masks = 1, mask_after(1)
        while 2 * rounds <= most:
            doubled = mask_after(2 * rounds)
            agreement[rounds] = corrected_overlap(masks, doubled)
            if agreement[rounds] >= threshold:
                break
            rounds, masks = 2 * rounds, doubled
    return ChosenIterations(choice=Choice(value=rounds, reason=_reason(agreement, rounds, config)), agreement=agreement)


def _reason(agreement: dict[int, float], chosen: int, config: TrialConfig) -> str:
    tried = chosen if chosen in agreement else chosen // 2
    figures = f"overlap of the weights that {tried} and {2 * tried} iterations keep {agreement[tried]:.3f}"
    if chosen in agreement:
        text = "twice as many hardly change the mask"
    else:
        text = f"twice as many change the mask up to the most iterations allowed, {config.prune_iterations}"
    return f"{text}: {figures}, threshold {config.iterations.threshold:g}"


def _restore(weights: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(values[name])


def record_iterations(state: TrialState, chosen: ChosenIterations) -> None:
    """Puts the choice and the agreements behind it into the state of a trial."""
    for rounds, agreement in chosen.agreement.items():
        state.metrics.record(rounds, {"prune/agreement_with_double": agreement})
    state.metrics.record(chosen.choice.value, {CHOSEN_ITERATIONS: float(chosen.choice.value)})
    state.choices[ITERATIONS] = chosen.choice
