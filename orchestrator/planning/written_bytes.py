"""How many bytes a plan will write, from the numbers of its networks: sparse models, snapshots of warm-ups, checkpoints.

What is small beside those, and MLflow's copies, is counted in record_bytes.py.

sparse model    4 bytes for each kept or unprunable number, and the mask as short as its entropy allows
snapshot        4 bytes for each number of the network, and for each parameter's momentum
checkpoint      the same, a byte for each prunable weight's mask, and the numbers that a method has besides, with their momentum
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.planning.entries import PlannedWarmup
from orchestrator.planning.network_shapes import shape_of_network
from orchestrator.planning.plan import Plan
from orchestrator.planning.record_bytes import (
    DATABASE,
    DATABASE_FILE,
    DATABASE_FILES,
    JOURNAL,
    NOTHING,
    REPORT,
    REPORT_FILES,
    RUN,
    SWEEP,
    SWEEP_FILES,
    Written,
    records_of,
    run_of,
)
from trainables.config.keys import canonical
from trainables.config.trial import TrialConfig
from trainables.errors import ConfigError
from trainables.models.blocks import additional_numbers
from trainables.pruning.kept_weights import NetworkShape, kept_weights, prunable_shapes
from trainables.runtime.machine import processors

FLOAT = 4
HEADER = 1_500  # bytes of a small network's model besides its numbers


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenBytes:
    """Bytes that a plan will write; None where the numbers of a network are not known.

    Attributes:
        models: of all trials that are left; MLflow keeps another copy of those that it logs.
        snapshots: of all shared warm-ups.
        checkpoint: the largest one; each running trial has one, and a finished one has none.
        own_snapshots: of the trial with the most, where warm-ups are not shared; they go with the checkpoint.
        running: trials that run at once, as far as this machine tells.
        records: all other files of trials and sweep.
        mlflow: MLflow's database and artifacts; nothing where they lie elsewhere.
    """

    models: int | None
    snapshots: int | None
    checkpoint: int | None
    own_snapshots: int | None = 0
    running: int = 0
    records: Written = NOTHING
    mlflow: Written | None = NOTHING

    @property
    def needed(self) -> Written | None:
        """All that lies in the storage at once, at most; None where sizes are not known."""
        sizes = (self.models, self.snapshots, self.checkpoint, self.own_snapshots)
        if self.mlflow is None or any(size is None for size in sizes):
            return None
        models, snapshots, checkpoint, own = (size or 0 for size in sizes)
        large = models + snapshots + self.running * (checkpoint + own)
        return Written(bytes=large) + self.records + self.mlflow


def model_kind(config: TrialConfig) -> tuple[Any, ...]:
    """What the size of a trial's model depends on."""
    options = canonical(config).get(config.option_block, {})
    rounds = config.rounds if config.level_epochs else 0
    removed = config.granularity, config.target, config.sparsity
    return (config.model, config.width, config.prunable, config.method, removed, rounds, str(options))


def written_bytes(plan: Plan, known_models: Mapping[tuple[Any, ...], float], folder: Path | None = None) -> WrittenBytes:
    """What the unfinished trials of the plan will write.

    Args:
        known_models: kind of model -> mean bytes of those that are finished.
        folder: of the storage, where MLflow's files lie unless `tracking.uri` is given; None for an object store.
    """
    sizes: dict[tuple[Any, ...], float | None] = dict(known_models)
    shapes: dict[tuple[Any, ...], NetworkShape | None] = {}

    def shape_of(config: TrialConfig) -> NetworkShape | None:
        network = (config.model, config.width)
        if network not in shapes:
            try:
                shapes[network] = shape_of_network(plan, config) if plan.data_facts else None
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
    shared = plan.spec.share_warmups
    warmups = plan.warmups(unfinished_only=True) if shared else []

    def snapshots_of(config: TrialConfig, lengths: Sequence[int]) -> float | None:
        return _times(len(lengths), _snapshot_bytes(config, shape_of(config)))

    own = [] if shared else [snapshots_of(one.config, one.config.warmup_lengths) for one in plan.unfinished]
    snapshots = [snapshots_of(warmup.config, warmup.lengths) for warmup in warmups]
    checkpoints = [_checkpoint_bytes(trial.config, shape_of(trial.config)) for trial in plan.unfinished]
    in_folder = folder is not None and plan.spec.tracking.uri is None
    return WrittenBytes(
        models=_sum(models),
        snapshots=_sum(snapshots),
        checkpoint=_largest(checkpoints),
        own_snapshots=_largest(own),
        running=min(len(plan.unfinished), slots_here(plan)),
        records=_records(plan, warmups),
        mlflow=_mlflow(plan, models, len(warmups), folder) if folder is not None and in_folder else NOTHING,
    )


def slots_here(plan: Plan) -> int:
    """How many trials can run at once on this machine's processors; of a cluster only `max_concurrent` tells."""
    each = plan.spec.resources.cpus
    fit = max(1, int(processors() / (1 if each == "auto" else each)))
    return min(fit, plan.spec.resources.max_concurrent or fit)


def _records(plan: Plan, warmups: Sequence[PlannedWarmup]) -> Written:
    if not plan.unfinished:
        return NOTHING
    snapshots = Written(files=sum(len(warmup.lengths) for warmup in warmups))
    return sum((records_of(trial.config) for trial in plan.unfinished), Written(bytes=SWEEP, files=SWEEP_FILES) + snapshots)


def _mlflow(plan: Plan, models: Sequence[float | None], warmups: int, folder: Path) -> Written | None:
    """MLflow's files in the storage's folder; None where sizes of models are not known."""
    if not plan.unfinished:
        return NOTHING
    new = Written(bytes=JOURNAL + REPORT, files=REPORT_FILES)
    if not (folder / DATABASE_FILE).exists():
        new += Written(bytes=DATABASE, files=DATABASE_FILES)
    for trial, model in zip(plan.unfinished, models, strict=True):
        if model is None:
            return None
        new += run_of(trial.config, model, logs_model=plan.spec.tracking.models == "all")
    return new + Written(bytes=warmups * RUN)


def _model_bytes(plan: Plan, config: TrialConfig, shape: NetworkShape) -> float | None:
    assert plan.data_facts is not None
    try:
        weights = prunable_shapes(config, shape)
    except ConfigError:
        return None
    prunable, kept = sum(map(math.prod, weights.values())), kept_weights(config, weights)
    return FLOAT * (shape.values - prunable + kept) + prunable * _entropy(kept / prunable) / 8 + HEADER


def _entropy(share: float) -> float:
    """Bits for each weight of a random mask with this share of ones."""
    return -sum(one * math.log2(one) for one in (share, 1 - share) if one > 0)


def _snapshot_bytes(config: TrialConfig, shape: NetworkShape | None) -> float | None:
    """Of values and momentum in dense training, with those of blocks."""
    if shape is None:
        return None
    additional = additional_numbers(config.block, list(shape.layers.values()))
    return FLOAT * (shape.values + shape.parameters + 2 * additional)


def _checkpoint_bytes(config: TrialConfig, shape: NetworkShape | None) -> float | None:
    if shape is None:
        return None
    additional = 2 * config.options.additional_numbers(shape.layers.values())  # with their momentum
    size = _snapshot_bytes(config, shape) if config.is_dense else FLOAT * (shape.values + shape.parameters + additional)
    return None if size is None else size + sum(map(math.prod, shape.layers.values()))


def _times(count: int, size: float | None) -> float | None:
    return None if size is None else count * size


def _sum(sizes: list[float | None]) -> int | None:
    known = [size for size in sizes if size is not None]
    return round(sum(known)) if len(known) == len(sizes) else None


def _largest(sizes: list[float | None]) -> int | None:
    known = [size for size in sizes if size is not None]
    return round(max(known, default=0)) if len(known) == len(sizes) else None
