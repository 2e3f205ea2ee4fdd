"""SPDY within a trial: the search before its first round, and the reconstruction of layers after its last one.

Both are functions of the trial's configuration, its data and the dense network, so what is interrupted is computed again.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainables.config.trial import TrialConfig
from trainables.data.batches import normalized
from trainables.data.splits import Data
from trainables.errors import NonFiniteError
from trainables.models.losses import summed_loss
from trainables.models.prunable import prunable_weights
from trainables.pruning.adaprune import BATCH, fit_network
from trainables.pruning.coefficient_search import Coefficients, search_coefficients
from trainables.pruning.layer_database import LayerDatabase, Reconstruction
from trainables.pruning.masks import apply_masks, full_masks
from trainables.pruning.rounds import score_round
from trainables.pruning.sparsity_distributions import LayerCounts
from trainables.pruning.spdy_selection import SpdySelection
from trainables.runtime.device import Runtime
from trainables.runtime.seeding import derived_seed, unchanged_random_numbers
from trainables.trial.checkpoint import TrialState


def search_layers(
    state: TrialState,
    data: Data,
    config: TrialConfig,
    runtime: Runtime,
    counts_of: LayerCounts,
    selection: SpdySelection,
) -> None:
    """Puts the coefficients of the layers that fit the target best into the state of a dense network, and their loss.

    Raises:
        NonFiniteError: a score is not finite, or no loss is.
    """
    assert config.target.latency is not None
    latency = config.target.latency
    reconstruction, labels = _reconstruction(state.model, data, config, runtime, counts_of, selection)
    database = LayerDatabase(reconstruction, selection.timed, labels, summed_loss(config.training.loss))
    names = list(selection.timed.layers)

    def loss_of(coefficients: Coefficients) -> float:
        weighted = selection.with_coefficients(dict(zip(names, coefficients, strict=True)))
        return database.loss(weighted.counts(latency))

    prior = loss_of((1.0,) * len(names))
    seed, spdy = derived_seed(config.seed, "layer search"), config.spdy
    coefficients, loss = search_coefficients(len(names), loss_of, starts=spdy.starts, misses=spdy.misses, seed=seed)
    state.coefficients = dict(zip(names, coefficients, strict=True))
    state.metrics.record(0, {"prune/prior_loss": prior, "prune/searched_loss": loss})


def reconstruct_layers(
    state: TrialState,
    dense: nn.Module,
    data: Data,
    config: TrialConfig,
    runtime: Runtime,
    counts_of: LayerCounts,
    selection: SpdySelection,
) -> None:
    """Gives a pruned network the weights of its layers as reconstructed at their masks; then all layers together, if asked.

    After one round these are the weights of the search's database.
    """
    reconstruction, _ = _reconstruction(dense, data, config, runtime, counts_of, selection)
    fitted = reconstruction.with_masks(selection.timed, state.masks)
    with torch.no_grad():
        for name, weight in fitted.items():
            state.model.get_parameter(name).copy_(weight)
    seed = derived_seed(config.seed, "all layers")
    if config.spdy.global_passes:
        fit_network(state.model, dense, state.masks, reconstruction.images, passes=config.spdy.global_passes, seed=seed)
    apply_masks({name: state.model.get_parameter(name) for name in state.masks}, state.masks)


def _reconstruction(
    dense: nn.Module,
    data: Data,
    config: TrialConfig,
    runtime: Runtime,
    counts_of: LayerCounts,
    selection: SpdySelection,
) -> tuple[Reconstruction, Tensor]:
    """With the scores of the first round on the dense network; and the labels of its images."""
    weights = prunable_weights(dense, config.prunable.exclude)
    with unchanged_random_numbers(runtime.device):
        scores = score_round(dense, weights, full_masks(weights), data, config, 1, runtime, counts_of, selection).scores
    if not bool(scores.isfinite().all()):
        raise NonFiniteError(f"{int((~scores.isfinite()).sum())} scores of weights are not finite")
    signed = -scores if config.sanity.invert else scores
    parts = signed.split([weight.numel() for weight in weights.values()])
    images, labels = _samples(data, config)
    return Reconstruction(
        dense=dense,
        scores={name: part.view(weight.shape) for (name, weight), part in zip(weights.items(), parts, strict=True)},
        images=images,
        passes=config.spdy.passes,
        seed=config.seed,
    ), labels


def _samples(data: Data, config: TrialConfig) -> tuple[Tensor, Tensor]:
    """Training images without augmentation, normalised, and their labels; seeded."""
    generator = torch.Generator().manual_seed(derived_seed(config.seed, "layer samples"))
    chosen = torch.randperm(len(data.train), generator=generator)[: config.spdy.samples]
    batches = list(normalized(data.train.batches(chosen.split(BATCH)), data.normalization))
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)
