"""The masks that methods would give a network now: scored in one round, not applied, with no effect on any bit of training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import nn

from trainables.config.method import Course
from trainables.config.methods import CUSTOM
from trainables.config.trial import TargetConfig, TrialConfig
from trainables.data.splits import Data
from trainables.models.prunable import prunable_weights
from trainables.pruning.masks import Masks, full_masks
from trainables.pruning.rounds import score_round
from trainables.pruning.scoring import Scores
from trainables.pruning.selection import Selection, WeightSelection
from trainables.pruning.shared_masks import masks_of_first
from trainables.pruning.sparse_trainers import updater_class
from trainables.pruning.sparsity_distributions import LayerCounts
from trainables.runtime.device import Runtime
from trainables.runtime.group import group_of
from trainables.runtime.seeding import unchanged_random_numbers


def virtual_masks(
    model: nn.Module,
    data: Data,
    configs: Sequence[TrialConfig],
    runtime: Runtime,
    counts_of: LayerCounts = lambda key: None,
    selection_of: Callable[[TrialConfig], Selection] = lambda config: WeightSelection(),
) -> list[Masks]:
    """For each configuration, the mask at its sparsity if the dense network were pruned now, in one round.

    The images of a score are those of the first round, the same at every call. Configurations that differ in sparsity alone
    share one score. A method that prunes while or after the sparse network trains is judged by the magnitudes; N:M masks are by
    their own rule. Parameters, buffers, gradients, modes and the state of PyTorch's random numbers stay as they are.

    Raises:
        NonFiniteError: a score is infinite or not a number.
    """
    scores: dict[TrialConfig, Scores] = {}
    masks = []
    with unchanged_random_numbers(runtime.device):
        for config in map(_scored, configs):
            if config.pruning.course is Course.EVERY_STEP:
                masks.append(updater_class(config).initial_masks(model, config))
                continue
            weights = prunable_weights(model, config.prunable.exclude)
            full = full_masks(weights)
            selection = selection_of(config)
            group = replace(config, sparsity=0.0, target=TargetConfig()) if _scores_all_sparsities_alike(config) else config
            if group not in scores:
                scores[group] = score_round(model, weights, full, data, config, 1, runtime, counts_of, selection)
            values = scores[group].scores
            selected = selection.select(-values if config.sanity.invert else values, full, config, 1)
            masks.append(masks_of_first(selected, group_of(runtime)))
    return masks


def _scored(config: TrialConfig) -> TrialConfig:
    """The configuration of one round by a method that scores a dense network."""
    by_magnitude = config.pruning.course in (Course.LEVELS, Course.ONCE_DURING, Course.GRADUAL)
    return replace(config, method="magnitude" if by_magnitude else config.method, prune_iterations=1)


def _scores_all_sparsities_alike(config: TrialConfig) -> bool:
    """Whether scores do not depend on the number of weights to keep; a custom function may use it."""
    return config.pruning.is_ranking and config.pruning is not CUSTOM
