"""One trial: warm-up -> pruning -> sparse training -> sparse model, resumable at every boundary.

`run_trial` may be called again after any interruption; it continues from what is in the trial's folder and ends with the
same bits and the same metric points. Reads: warmup.py, pruning.py, training.py, sparse_model.py. Read by: stage.py and
orchestrator/cli.py (one trial in the foreground).
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from trainables.checkpoint import (
    DamagedCheckpointError,
    SnapshotFiles,
    TrialFiles,
    TrialState,
    from_bytes,
    to_bytes,
)
from trainables.config import TrialConfig
from trainables.data import Data, load_data
from trainables.datasets import Source
from trainables.failures import StopRequestedError, SupersededError, kind_of
from trainables.keys import NUMERICS, canonical
from trainables.masks import apply_masks, emptied_layers, full_masks, num_kept
from trainables.metrics import MetricLog, points_from_lines
from trainables.models import network_of, prunable_weights
from trainables.pruning import prune_round
from trainables.records import CHECKPOINT, CONFIG, ERROR, METRICS, MODEL, RESULT
from trainables.runtime import Runtime
from trainables.schedules import learning_rate
from trainables.sparse_model import ModelCard, encode
from trainables.training import evaluate, make_optimizer, train_epoch
from trainables.warmup import Trunk


@dataclass(frozen=True, kw_only=True)
class TrialContext:
    """What a trial needs besides its configuration.

    Attributes:
        shares_snapshots: other trials may read them; if not, they are removed when the trial has finished.
        checkpoint_seconds: a checkpoint is written at the first boundary after so many seconds, and at phase ends.
        metrics_seconds: the same for metrics.jsonl; only published points are told to `on_progress`.
        on_progress: called at boundaries with the state, after its points were published.
        provenance: told in the result and part of nothing: key, data digest, revision.
    """

    source: Source
    runtime: Runtime
    files: TrialFiles
    snapshots: SnapshotFiles
    shares_snapshots: bool = True
    checkpoint_seconds: float = 60.0
    metrics_seconds: float = 5.0
    on_progress: Callable[[TrialState], None] = lambda state: None
    provenance: dict[str, Any] = field(default_factory=dict)


def run_trial(config: TrialConfig, context: TrialContext) -> dict[str, Any]:
    """The content of result.json, after the sparse model and every metric point were published.

    Raises:
        TrialError: a failure with a kind; StopRequestedError leaves a checkpoint. Any other failure, of a kind that we know or
            not, leaves error.json with its traceback.
    """
    finished = context.files.read(RESULT)
    if finished is not None:
        for leftover in (CHECKPOINT, ERROR):  # of an attempt that ended right after its result
            if context.files.read(leftover) is not None:
                context.files.remove(leftover)
        _remove_private_snapshots(context)
        return dict(json.loads(finished))
    try:
        result = _Trial(config, context).run()
        _remove_private_snapshots(context)
        return result
    except (StopRequestedError, SupersededError):
        raise
    except Exception as error:
        _publish_error(context.files, error)
        raise


def _remove_private_snapshots(context: TrialContext) -> None:
    if not context.shares_snapshots:
        for epoch in context.snapshots.epochs():
            context.snapshots.remove(epoch)


def _publish_error(files: TrialFiles, error: Exception) -> None:
    record = {
        "kind": kind_of(error),
        "message": str(error) or type(error).__name__,
        "traceback": traceback.format_exc(),
        "attempt": files.attempt,
        "time": int(time.time() * 1000),
    }
    files.publish(ERROR, json.dumps(record, indent=1).encode())


class _Trial:
    def __init__(self, config: TrialConfig, context: TrialContext) -> None:
        self.config = config
        self.context = context
        self.files = context.files
        self.runtime = context.runtime
        self.begun_ms = int(time.time() * 1000)
        context.runtime.activate()
        self.data: Data = load_data(config.dataset, context.source, context.runtime.device, context.runtime.threads)
        self.trunk = Trunk(
            config=config,
            data=self.data,
            runtime=context.runtime,
            snapshots=context.snapshots,
            snapshot_seconds=context.checkpoint_seconds,
            after_epoch=self._after_warmup_epoch,
        )
        self.last_checkpoint = self.last_metrics = time.monotonic()

    def run(self) -> dict[str, Any]:
        self._publish_config()
        # A wrong pattern of prunable.exclude is told now, not after the warm-up.
        prunable_weights(network_of(self.config, self.data.image_shape, self.data.num_classes), self.config.prunable.exclude)
        state = self._resumed() or self._start_of_pruning()
        if self.runtime.fingerprint() not in state.fingerprints:
            state.fingerprints.append(self.runtime.fingerprint())
        while state.phase == "prune":
            self._prune_one_round(state)
        while state.position < self.config.sparse_epochs:
            self._train_one_epoch(state)
        return self._publish_result(state)

    def _publish_config(self) -> None:
        record = self.context.provenance | {"config": canonical(self.config), "numerics": NUMERICS}
        content = json.dumps(record, indent=1, sort_keys=True).encode()
        if self.files.read(CONFIG) is None:
            self.files.publish(CONFIG, content)

    def _resumed(self) -> TrialState | None:
        """The state of the trial's checkpoint; None if there is none or it is damaged: the trial begins again."""
        content = self.files.read(CHECKPOINT)
        if content is None:
            return None
        network = network_of(self.config, self.data.image_shape, self.data.num_classes)
        try:
            state = from_bytes(content, self.runtime.place(network), self.config.training)
        except DamagedCheckpointError:
            self.files.remove(CHECKPOINT)
            return None
        self._keep_published_points(state)
        return state

    def _start_of_pruning(self) -> TrialState:
        for length in self.config.warmup_lengths:
            if length < self.config.warmup_epochs:  # a rewind will read the trunk there
                self.trunk.state_at(length)
        state = self.trunk.state_at(self.config.warmup_epochs)
        state.phase, state.position = "prune", 0
        weights = prunable_weights(state.model, self.config.prunable.exclude)
        state.masks = full_masks(weights)
        self._keep_published_points(state)
        if self.config.rounds == 0:
            state.metrics.record(0, {"prune/sparsity": 0.0})
            self._start_of_training(state)
        return state

    def _keep_published_points(self, state: TrialState) -> None:
        published = self.files.read(METRICS)
        if published is not None:
            state.metrics.merge(points_from_lines(published))

    def _after_warmup_epoch(self, state: TrialState) -> None:
        self._boundary(state)

    def _prune_one_round(self, state: TrialState) -> None:
        begun = time.perf_counter()
        weights = prunable_weights(state.model, self.config.prunable.exclude)
        state.masks, told = prune_round(
            state.model, weights, state.masks, self.data, self.config, state.position + 1, self.runtime
        )
        state.position += 1
        state.metrics.record(state.position, told)
        state.seconds["prune"] += time.perf_counter() - begun
        if state.position == self.config.rounds:
            self._start_of_training(state)
        self._boundary(state, phase_ends=state.phase == "train")

    def _start_of_training(self, state: TrialState) -> None:
        """Weights as pruning left them, or those of an earlier epoch; momentum starts at zero either way."""
        if self.config.rewind_epoch is not None:
            earlier = self.trunk.state_at(self.config.rewind_epoch)
            state.model.load_state_dict(earlier.model.state_dict())
            apply_masks(prunable_weights(state.model, self.config.prunable.exclude), state.masks)
        state.optimizer = make_optimizer(state.model, self.config.training)
        state.phase, state.position = "train", 0

    def _train_one_epoch(self, state: TrialState) -> None:
        begun = time.perf_counter()
        config = self.config
        first = config.warmup_epochs if config.training.budget == "total" else 0
        told = train_epoch(
            state.model,
            state.optimizer,
            state.masks if config.rounds else {},
            self.data,
            training=config.training,
            lr=learning_rate(first + state.position, config.training),
            seed=config.seed,
            epoch=config.warmup_epochs + state.position,
            runtime=self.runtime,
        )
        state.position += 1
        told |= evaluate(state.model, self.data.validation, self.data.normalization, self.runtime, "val")
        state.seconds["train"] += time.perf_counter() - begun
        state.metrics.record(config.warmup_epochs + state.position, told)
        if state.position < config.sparse_epochs:
            self._boundary(state)

    def _boundary(self, state: TrialState, phase_ends: bool = False) -> None:
        """Publishes what is due: points first, then the checkpoint that carries them; ends here if told to stop.

        A warm-up's checkpoint is its snapshot (warmup.py), so none is written for it here.
        """
        now = time.monotonic()
        stop = self.files.stop_requested()
        checkpoint = phase_ends or stop or now - self.last_checkpoint >= self.context.checkpoint_seconds
        if checkpoint or now - self.last_metrics >= self.context.metrics_seconds:
            self.files.publish(METRICS, self._lines(state))
            self.last_metrics = now
            if checkpoint and state.phase != "warmup":
                self.files.publish(CHECKPOINT, to_bytes(state))
                self.last_checkpoint = now
            self.context.on_progress(state)
        if stop:
            if state.phase == "warmup":
                self.context.snapshots.publish(state.position, to_bytes(state))
            raise StopRequestedError(f"stopped in phase {state.phase} after {state.position}; continues from there")

    def _lines(self, state: TrialState) -> bytes:
        """The content of metrics.jsonl. While the trunk is trained it is a copy that the trial's own points are added to:
        they must not get into the snapshots that other trials read."""
        if state.phase != "warmup":
            return state.metrics.to_lines()
        both = MetricLog(state.metrics.points())
        published = self.files.read(METRICS)
        if published is not None:
            both.merge(points_from_lines(published))
        return both.to_lines()

    def _publish_result(self, state: TrialState) -> dict[str, Any]:
        config, data = self.config, self.data
        weights = prunable_weights(state.model, config.prunable.exclude)
        apply_masks(weights, state.masks)  # -0.0 becomes 0.0
        last_step = config.total_epochs
        state.metrics.record(last_step, evaluate(state.model, data.test, data.normalization, self.runtime, "test"))
        prunable, kept = sum(weight.numel() for weight in weights.values()), num_kept(state.masks)
        card = ModelCard(
            model=config.model,
            image_shape=data.image_shape,
            num_classes=data.num_classes,
            normalization=data.normalization,
            config=canonical(config),
        )
        model_file, model_sha256 = encode(state.model, state.masks, card)
        state.metrics.record(last_step, self._costs(state) | {"model/bytes": float(len(model_file))})

        self.files.publish(MODEL, model_file)
        self.files.publish(METRICS, state.metrics.to_lines())
        result = self.context.provenance | {
            "config": canonical(config),
            "numerics": NUMERICS,
            "attempt": self.files.attempt,
            "model_sha256": model_sha256,
            "model_bytes": len(model_file),
            "image_shape": list(data.image_shape),
            "num_classes": data.num_classes,
            "prunable_weights": prunable,
            "kept_weights": kept,
            "emptied_layers": emptied_layers(state.masks),
            "layers": [
                {"name": name, "shape": list(mask.shape), "kept": int(mask.sum())} for name, mask in state.masks.items()
            ],
            "metrics": state.metrics.last_values(),
            "metric_points": len(state.metrics.points()),
            "fingerprints": state.fingerprints,
            "started_ms": min([point.time_ms for point in state.metrics.points()] + [self.begun_ms]),
            "finished_ms": int(time.time() * 1000),
        }
        self.files.publish(RESULT, json.dumps(result, indent=1, sort_keys=True).encode())
        self.files.remove(CHECKPOINT)
        self.files.remove(ERROR)
        self.context.on_progress(state)
        return result

    def _costs(self, state: TrialState) -> dict[str, float]:
        """Seconds by phase and the search cost (warm-up and pruning) in dense-epoch equivalents.

        An equivalent is one training epoch of this trial, so the figure does not depend on the machine.
        """
        warmup, prune, train = (state.seconds[phase] for phase in ("warmup", "prune", "train"))
        epochs = self.config.total_epochs
        epoch_seconds = (warmup + train) / epochs if epochs else 0.0
        costs = {
            "cost/warmup_seconds": warmup,
            "cost/prune_seconds": prune,
            "cost/search_seconds": warmup + prune,
            "cost/total_seconds": warmup + prune + train,
        }
        if epoch_seconds:
            costs["cost/prune_dense_epochs"] = prune / epoch_seconds
            costs["cost/search_dense_epochs"] = (warmup + prune) / epoch_seconds
        return costs
