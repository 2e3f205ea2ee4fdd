"""What a finished trial says of itself: the figures of its result.json and the last points of its metrics."""

from __future__ import annotations

from typing import Any

from trainables.analysis.model_stats import ModelStats, masks_sha256
from trainables.config.trial import TrialConfig
from trainables.pruning.masks import Masks, collapsed_layers
from trainables.trial.checkpoint import TrialState


def cost_metrics(config: TrialConfig, seconds: dict[str, float]) -> dict[str, float]:
    """Seconds by phase, and the cost of pruning and of the whole search (warm-up and pruning) in dense-epoch equivalents.

    An equivalent is one training epoch of this trial, so the figure does not depend on the machine. What the levels of
    iterative magnitude pruning train is search.
    """
    warmup, prune, train = (seconds[phase] for phase in ("warmup", "prune", "train"))
    epoch_seconds = (warmup + train) / config.total_epochs if config.total_epochs else 0.0
    told = {
        "cost/warmup_seconds": warmup,
        "cost/prune_seconds": prune,
        "cost/search_seconds": warmup + prune,
        "cost/total_seconds": warmup + prune + train,
    }
    if epoch_seconds:
        told["cost/prune_dense_epochs"] = prune / epoch_seconds
        told["cost/search_dense_epochs"] = (warmup + prune) / epoch_seconds
        told["cost/total_dense_epochs"] = (warmup + prune + train) / epoch_seconds
    return told


def size_metrics(found: ModelStats) -> dict[str, float]:
    """The points that tell what is left of the network; a figure that is not known has none."""
    told = {
        "model/sparsity": 1 - found.kept / found.prunable,
        "model/parameter_sparsity": found.parameter_sparsity,
        "model/effective_sparsity": found.effective_sparsity,
        "model/compression_ratio": found.compression_ratio,
        "model/flops": found.kept_flops,
        "model/theoretical_speedup": found.speedup,
    }
    return {key: float(value) for key, value in told.items() if value is not None}


def weight_summary(config: TrialConfig, state: TrialState, found: ModelStats) -> dict[str, Any]:
    """The part of result.json that tells which weights were kept, in all and by layer; null where a figure is not known."""
    return {
        "seed": config.seed,
        "device": state.fingerprints[-1]["processor"],
        "requested_sparsity": config.sparsity,
        "achieved_sparsity": 1 - found.kept / found.prunable,
        "prunable_weights": found.prunable,
        "kept_weights": found.kept,
        "live_weights": found.live_weights,
        "parameters": found.parameters,
        "kept_parameters": found.kept_parameters,
        "flops": found.flops,
        "kept_flops": found.kept_flops,
        "emptied_layers": collapsed_layers(state.masks),
        "mask_sha256": masks_sha256(state.masks),
        "layers": layer_table(state.masks, found, state.layer_scores),
    }


def layer_table(masks: Masks, found: ModelStats, scores: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """One row a prunable layer: shape, kept weights, density, multiply-adds, and the last round's scores if there are any."""
    return [
        {
            "name": name,
            "shape": list(mask.shape),
            "kept": (kept := int(mask.count_nonzero())),
            "density": kept / mask.numel(),
            "flops": found.layer_flops[name],
            "kept_flops": found.kept_layer_flops[name],
        }
        | scores.get(name, {})
        for name, mask in masks.items()
    ]
