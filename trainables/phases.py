"""One trial: warm-up -> pruning -> sparse training -> sparse model, resumable at every boundary.

Pruning is rounds of score and mask, or for `imp` levels of training, pruning and rewinding; methods that prune during training
have none. `run_trial` may be called again after any interruption; it continues from what is in the trial's folder and ends with
the same bits and the same metric points. Reads: warmup.py, pruning.py, training.py, sparse_model.py, outcome.py. Read by:
stage.py and orchestrator/foreground.py.
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from trainables.checkpoint import (
    DamagedCheckpointError,
    SnapshotFiles,
    TrialFiles,
    TrialState,
    from_bytes,
    to_bytes,
)
from trainables.config import TrialConfig, derived_seed
from trainables.data import Data, load_data
from trainables.datasets import Source
from trainables.failures import StopRequestedError, SupersededError, kind_of
from trainables.footprint import footprint
from trainables.keys import NUMERICS, canonical
from trainables.layer_densities import LayerCounts
from trainables.losses import check_loss
from trainables.masking import Masking, first_masks, make_masking
from trainables.masks import apply_masks, full_masks
from trainables.method_config import DURING_TRAINING
from trainables.metrics import MetricLog, points_from_lines
from trainables.models import initialized_network, network_of, prunable_weights
from trainables.outcome import costs, facts, size_metrics
from trainables.pruning import mask_points, prune_round
from trainables.records import CHECKPOINT, CONFIG, ERROR, METRICS, MODEL, NETWORK, RESULT
from trainables.runtime import Runtime
from trainables.sanity import shuffled
from trainables.schedules import learning_rate
from trainables.sparse_model import ModelCard, encode
from trainables.training import evaluate, make_optimizer, measured, train_epoch
from trainables.user_code import NOTHING_OWN, OwnFiles, is_own, source_of
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
        counts_of: kept weights by layer of another trial, by its key.
        own: where the user's own modules and weights lie; the result tells their digests.
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
    counts_of: LayerCounts = lambda key: None
    own: OwnFiles = NOTHING_OWN


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
        context.own.activate(config)
        self.own_digests = context.own.used_by(config)
        self.provenance = context.provenance | ({"own_digests": self.own_digests} if self.own_digests else {})
        self.data: Data = load_data(config.dataset, context.source, context.runtime.device)
        self.trunk = Trunk(
            config=config,
            data=self.data,
            runtime=context.runtime,
            snapshots=context.snapshots,
            snapshot_seconds=context.checkpoint_seconds,
            after_epoch=self._after_warmup_epoch,
            own=context.own,
        )
        self.last_checkpoint = self.last_metrics = time.monotonic()

    def run(self) -> dict[str, Any]:
        self._publish_config()
        # A wrong pattern of prunable.exclude, or a wrong function of the user's, is told now, not after the warm-up.
        prunable_weights(network_of(self.config, self.data.image_shape, self.data.num_classes), self.config.prunable.exclude)
        check_loss(self.config.training.loss, self.data.num_classes, self.data.train.labels.device)
        state = self._resumed() or self._start_of_pruning()
        if self.runtime.fingerprint() not in state.fingerprints:
            state.fingerprints.append(self.runtime.fingerprint())
        while state.phase == "prune":
            self._prune_one_round(state)
        while state.phase == "level":
            self._train_one_level_epoch(state)
        while state.position < self.config.sparse_epochs:
            self._train_one_epoch(state)
        return self._publish_result(state)

    def _publish_config(self) -> None:
        record = self.provenance | {"config": canonical(self.config), "numerics": NUMERICS}
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
        self._keep_published_points(state)
        state.phase, state.position = "level" if self.config.method == "imp" else "prune", 0
        if self.config.method in DURING_TRAINING or self.config.rounds == 0:
            state.masks = first_masks(state.model, self.config)
            told = mask_points(state.masks)
            state.metrics.record(0, told if self.config.method != "dense" else {"prune/sparsity": 0.0})
            self._start_of_training(state)
            return state
        state.masks = full_masks(prunable_weights(state.model, self.config.prunable.exclude))
        if state.phase == "prune":
            self._record_accuracy(state, 0, "before")
        else:  # every level begins at rest, the first one too
            state.optimizer = make_optimizer(state.model, self.config.training)
        return state

    def _keep_published_points(self, state: TrialState) -> None:
        published = self.files.read(METRICS)
        if published is not None:
            state.metrics.merge(points_from_lines(published))

    def _after_warmup_epoch(self, state: TrialState) -> None:
        self._boundary(state)

    def _prune_one_round(self, state: TrialState) -> None:
        self._score_and_mask(state, state.position + 1)
        state.position += 1
        if state.position == self.config.rounds:
            self._record_accuracy(state, state.position, "after")
            self._start_of_training(state)
        self._boundary(state, phase_ends=state.phase == "train")

    def _train_one_level_epoch(self, state: TrialState) -> None:
        """One epoch of iterative magnitude pruning; at the end of a level it prunes and rewinds (arXiv:1903.01611)."""
        config = self.config
        begun = time.perf_counter()
        self._one_epoch(state, state.position % config.sparse_epochs)
        state.position += 1
        state.seconds["prune"] += time.perf_counter() - begun
        level, rest = divmod(state.position, config.sparse_epochs)
        if rest == 0:
            self._record_accuracy(state, level, "before")
            self._score_and_mask(state, level)
            self._record_accuracy(state, level, "after")
            if level == config.rounds:
                self._start_of_training(state)
            else:
                self._begin_from(state, config.warmup_epochs)
        self._boundary(state, phase_ends=state.phase == "train")

    def _score_and_mask(self, state: TrialState, round_: int) -> None:
        begun = time.perf_counter()
        weights = prunable_weights(state.model, self.config.prunable.exclude)
        state.masks, told, state.layer_scores = prune_round(
            state.model, weights, state.masks, self.data, self.config, round_, self.runtime, self.context.counts_of
        )
        state.metrics.record(round_, told)
        state.seconds["prune"] += time.perf_counter() - begun

    def _record_accuracy(self, state: TrialState, step: int, when: str) -> None:
        """The validation accuracy right before or after pruning; no cost of it, since no method needs it."""
        found = measured(state.model, self.data.validation, self.data.normalization, self.runtime)  # its loss is not told
        state.metrics.record(step, {f"prune/val_{name}_{when}": found[name] for name in found if name != "loss"})

    def _start_of_training(self, state: TrialState) -> None:
        """Weights as pruning left them, or those of an earlier epoch; momentum starts at zero either way."""
        config = self.config
        if config.sanity.shuffle:
            state.masks = shuffled(state.masks, config.seed)
        if config.sanity.reinitialize:
            self._begin_from(state, None)
        elif config.rewind_epoch is not None:
            self._begin_from(state, config.rewind_epoch)
        elif config.sanity.shuffle:  # what the shuffled mask keeps was pruned before
            self._begin_from(state, config.warmup_epochs)
        else:
            apply_masks(prunable_weights(state.model, config.prunable.exclude), state.masks)
            state.optimizer = make_optimizer(state.model, config.training)
        state.phase, state.position = "train", 0

    def _begin_from(self, state: TrialState, epoch: int | None) -> None:
        """The weights and BN buffers of a warm-up epoch, or of another initialisation (None), under the masks, at rest."""
        if epoch is None:
            other = replace(self.config, seed=derived_seed(self.config.seed, "reinitialize"))
            network = initialized_network(other, self.data.image_shape, self.data.num_classes)
            state.model.load_state_dict(network.state_dict())
        else:
            state.model.load_state_dict(self.trunk.state_at(epoch).model.state_dict())
        apply_masks(prunable_weights(state.model, self.config.prunable.exclude), state.masks)
        state.optimizer = make_optimizer(state.model, self.config.training)

    def _train_one_epoch(self, state: TrialState) -> None:
        begun = time.perf_counter()
        config = self.config
        told, masking = self._one_epoch(state, state.position)
        state.position += 1
        with masking.effective():
            told |= evaluate(
                state.model, self.data.validation, self.data.normalization, self.runtime, "val", config.training.loss
            )
        state.seconds["train"] += time.perf_counter() - begun
        step = config.warmup_epochs + state.position
        if config.method in DURING_TRAINING:
            state.masks = masking.masks
            told |= mask_points(state.masks)
        state.metrics.record(step, told)
        if state.position < config.sparse_epochs:
            self._boundary(state)

    def _one_epoch(self, state: TrialState, done: int) -> tuple[dict[str, float], Masking]:
        """Trains one epoch, after `done` others of the sparse training or of a level."""
        config = self.config
        steps = len(self.data.train) // config.training.batch_size
        masking = make_masking(state.model, state.optimizer, state.masks, config, done * steps, config.sparse_epochs * steps)
        told = train_epoch(
            state.model,
            state.optimizer,
            masking,
            self.data,
            training=config.training,
            lr=learning_rate(done + (config.warmup_epochs if config.training.budget == "total" else 0), config.training),
            seed=config.seed,
            epoch=config.warmup_epochs + done,
            runtime=self.runtime,
            first_step=done * steps,
        )
        return told, masking

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
        apply_masks(prunable_weights(state.model, config.prunable.exclude), state.masks)  # -0.0 becomes 0.0
        last_step = config.total_epochs
        state.metrics.record(
            last_step, evaluate(state.model, data.test, data.normalization, self.runtime, "test", config.training.loss)
        )
        found = footprint(state.model, state.masks, data.image_shape)
        card = ModelCard(
            model=config.model,
            image_shape=data.image_shape,
            num_classes=data.num_classes,
            normalization=data.normalization,
            config=canonical(config),
            source_sha256=self.own_digests.get("model"),
        )
        pattern = config.srste.pattern if config.method == "srste" else None
        model_file, model_sha256 = encode(state.model, state.masks, card, pattern)
        told = costs(config, state.seconds) | size_metrics(found) | {"model/bytes": float(len(model_file))}
        state.metrics.record(last_step, told)

        self.files.publish(MODEL, model_file)
        if is_own(config.model):
            self.files.publish(NETWORK, source_of(config.model))
        self.files.publish(METRICS, state.metrics.to_lines())
        result = self.provenance | {
            "config": canonical(config),
            "numerics": NUMERICS,
            "attempt": self.files.attempt,
            "model_sha256": model_sha256,
            "model_bytes": len(model_file),
            "image_shape": list(data.image_shape),
            "num_classes": data.num_classes,
            **facts(config, state, found),
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
