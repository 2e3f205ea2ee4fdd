"""How many bytes a plan will write, from the numbers of its networks: sparse models, snapshots of warm-ups, checkpoints.

sparse model    4 bytes for each kept or unprunable number, and the mask as short as its entropy allows
snapshot        4 bytes for each number of the network, and for each parameter's momentum
checkpoint      the same, and a byte for each prunable weight's mask
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.planning.plan import Plan
from trainables.config.keys import canonical
from trainables.config.trial import TrialConfig
from trainables.errors import ConfigError
from trainables.pruning.kept_weights import NetworkShape, kept_weights, network_shape, prunable_shapes

FLOAT = 4
HEADER = 1_500  # bytes of a small network's model besides its numbers


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenBytes:
    """Bytes that a plan will write; None where the numbers of a network are not known.

    Attributes:
        models: of all trials that are left; MLflow keeps another copy of those that it logs.
        snapshots: of all shared warm-ups.
        checkpoint: the largest one; each running trial has one, and a finished one has none.
    """

    models: int | None
    snapshots: int | None
    checkpoint: int | None


def model_kind(config: TrialConfig) -> tuple[Any, ...]:
    """What the size of a trial's model depends on."""
    options = canonical(config).get(config.option_block, {})
    rounds = config.rounds if config.level_epochs else 0
    return (config.model, config.width, config.prunable, config.method, config.sparsity, rounds, str(options))


def written_bytes(plan: Plan, known_models: Mapping[tuple[Any, ...], float]) -> WrittenBytes:
    """What the unfinished trials of the plan will write.

    Args:
        known_models: kind of model -> mean bytes of those that are finished.
    """
    sizes: dict[tuple[Any, ...], float | None] = dict(known_models)
    shapes: dict[tuple[Any, ...], NetworkShape | None] = {}

    def shape_of(config: TrialConfig) -> NetworkShape | None:
        network = (config.model, config.width)
        if network not in shapes:
            try:
                shapes[network] = network_shape(config, plan.data_facts, plan.custom_files) if plan.data_facts else None
            except ConfigError:
                shapes[network] = None
        return shapes[network]

    models: list[float | None] = []
    for trial in plan.unfinished:
        kind = model_kind(trial.config)
        if kind not in sizes:
            shape = shape_of(trial.config)
            sizes[kind] = None if shape is None else _model_bytes(plan, trial.config, shape)
        models.append(sizes[kind])
    warmups = plan.warmups(unfinished_only=True) if plan.spec.share_warmups else []
    snapshots = [_times(len(warmup.lengths), _snapshot_bytes(shape_of(warmup.config))) for warmup in warmups]
    checkpoints = [_checkpoint_bytes(shape_of(trial.config)) for trial in plan.unfinished]
    return WrittenBytes(models=_sum(models), snapshots=_sum(snapshots), checkpoint=_largest(checkpoints))


def _model_bytes(plan: Plan, config: TrialConfig, shape: NetworkShape) -> float | None:
    assert plan.data_facts is not None
    try:
        weights = prunable_shapes(config, plan.data_facts, plan.custom_files)
    except ConfigError:
        return None
    prunable, kept = sum(map(math.prod, weights.values())), kept_weights(config, weights)
    return FLOAT * (shape.values - prunable + kept) + prunable * _entropy(kept / prunable) / 8 + HEADER


def _entropy(share: float) -> float:
    """Bits for each weight of a random mask with this share of ones."""
    return -sum(one * math.log2(one) for one in (share, 1 - share) if one > 0)


def _snapshot_bytes(shape: NetworkShape | None) -> float | None:
    return None if shape is None else FLOAT * (shape.values + shape.parameters)


def _checkpoint_bytes(shape: NetworkShape | None) -> float | None:
    return None if shape is None else FLOAT * (shape.values + shape.parameters) + sum(map(math.prod, shape.layers.values()))


def _times(count: int, size: float | None) -> float | None:
    return None if size is None else count * size


def _sum(sizes: list[float | None]) -> int | None:
    known = [size for size in sizes if size is not None]
    return round(sum(known)) if len(known) == len(sizes) else None


def _largest(sizes: list[float | None]) -> int | None:
    known = [size for size in sizes if size is not None]
    return round(max(known, default=0)) if len(known) == len(sizes) else None
