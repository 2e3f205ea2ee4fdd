"""The figures of a finished trial: the content of its result.json and the last points of its metrics."""

from __future__ import annotations

from typing import Any

from trainables.analysis.model_stats import ModelStats, masks_sha256
from trainables.config.trial import TrialConfig
from trainables.pruning.masks import Masks, collapsed_layers
from trainables.trial.checkpoint import TrialState


def cost_metrics(config: TrialConfig, seconds: dict[str, float]) -> dict[str, float]:
    """Seconds by phase, and the cost of pruning and of the whole search (warm-up and pruning) in dense-epoch equivalents.

    An equivalent is one training epoch of this trial, so the figure does not depend on the machine. The training in the levels
    of iterative magnitude pruning counts as search.
    """
    warmup, prune, train = (seconds[phase] for phase in ("warmup", "prune", "train"))
    epoch_seconds = (warmup + train) / config.total_epochs if config.total_epochs else 0.0
    metrics = {
        "cost/warmup_seconds": warmup,
        "cost/prune_seconds": prune,
        "cost/search_seconds": warmup + prune,
        "cost/total_seconds": warmup + prune + train,
    }
    if epoch_seconds:
        metrics["cost/prune_dense_epochs"] = prune / epoch_seconds
        metrics["cost/search_dense_epochs"] = (warmup + prune) / epoch_seconds
        metrics["cost/total_dense_epochs"] = (warmup + prune + train) / epoch_seconds
    return metrics


def size_metrics(stats: ModelStats) -> dict[str, float]:
    """The size of the pruned network as metrics, without unknown figures."""
    metrics = {
        "model/sparsity": 1 - stats.kept / stats.prunable,
        "model/parameter_sparsity": stats.parameter_sparsity,
        "model/effective_sparsity": stats.effective_sparsity,
        "model/compression_ratio": stats.compression_ratio,
        "model/flops": stats.kept_flops,
        "model/theoretical_speedup": stats.theoretical_speedup,
    }
    return {key: float(value) for key, value in metrics.items() if value is not None}


def weight_summary(config: TrialConfig, state: TrialState, stats: ModelStats) -> dict[str, Any]:
    """The fields of result.json about the kept weights, in all and by layer; null where a figure is unknown."""
    return {
        "seed": config.seed,
        "device": _device_text(state.fingerprints[-1]),
        "requested_sparsity": config.sparsity,
        "achieved_sparsity": 1 - stats.kept / stats.prunable,
        "prunable_weights": stats.prunable,
        "kept_weights": stats.kept,
        "live_weights": stats.connected_weights,
        "parameters": stats.parameters,
        "kept_parameters": stats.kept_parameters,
        "flops": stats.flops,
        "kept_flops": stats.kept_flops,
        "emptied_layers": collapsed_layers(state.masks),
        "mask_sha256": masks_sha256(state.masks),
        "layers": layer_table(state.masks, stats, state.layer_scores),
    }


def _device_text(fingerprint: dict[str, Any]) -> str:
    """What a trial was trained on, such as "4 workers on NVIDIA H200"."""
    workers = fingerprint.get("workers", 1)
    name = str(fingerprint["processor"])
    return name if workers == 1 else f"{workers} workers on {name}"


def layer_table(masks: Masks, stats: ModelStats, scores: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """One row for each prunable layer: shape, kept weights, density, multiply-adds, and scores of the last round if any."""
    return [
        {
            "name": name,
            "shape": list(mask.shape),
            "kept": (kept := int(mask.count_nonzero())),
            "density": kept / mask.numel(),
            "flops": stats.layer_flops[name],
            "kept_flops": stats.kept_layer_flops[name],
        }
        | scores.get(name, {})
        for name, mask in masks.items()
    ]
