"""One trial: warm-up -> pruning -> sparse training -> sparse model, resumable at every boundary.

Pruning is rounds of score and mask, or for `imp` levels of training, pruning and rewinding; methods that prune during training
have none. `run_trial` may be called again after any interruption; it continues from the files in the trial's folder and ends
with the same model and the same metric points.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property, partial
from typing import Any

from torch import nn

from trainables.channels.fitting import batches_to_fit, require_images
from trainables.config.automatic import WARMUP, with_choices
from trainables.config.keys import warmup_rule
from trainables.config.method import Course
from trainables.config.trial import TrialConfig
from trainables.data.batches import scoring_batches
from trainables.data.splits import Data, load_data
from trainables.errors import ConfigError, StaleAttemptError, StopRequestedError, StorageError, WorkerLostError
from trainables.models.blocks import without_blocks
from trainables.models.losses import check_loss
from trainables.models.prunable import prunable_weights
from trainables.models.registry import dense_network_of, initialized_network, network_of
from trainables.models.weight_use import unprunable_layers
from trainables.pruning.channel_selection import ChannelSelection
from trainables.pruning.kept_weights import check_kept_weights
from trainables.pruning.masks import apply_masks, full_masks
from trainables.pruning.rounds import mask_metrics, prune_round
from trainables.pruning.selection import Selection
from trainables.pruning.sparse_trainers import MaskUpdater, SparseTraining, updater_class
from trainables.pruning.spdy_selection import SpdySelection
from trainables.records.file_names import CHECKPOINT
from trainables.runtime.group import group_of
from trainables.runtime.seeding import derived_seed
from trainables.training.loop import evaluate, evaluate_raw
from trainables.training.lr_schedules import learning_rate
from trainables.training.optimizer import make_optimizer
from trainables.trial.auto_iterations import choose_iterations, record_iterations
from trainables.trial.auto_warmup import AutoWarmup, ChosenWarmup, record_warmup
from trainables.trial.checkpoint import DamagedCheckpointError, TrialState, from_bytes
from trainables.trial.context import TrialContext
from trainables.trial.earlier_attempts import finished_result, remove_leftovers, remove_private_snapshots
from trainables.trial.epoch import advance_epoch, timed, validate
from trainables.trial.layer_search import reconstruct_layers, search_layers
from trainables.trial.publisher import TrialPublisher, publish_error
from trainables.trial.selections import selection_of
from trainables.trial.warmup import WarmupTrainer


def run_trial(config: TrialConfig, context: TrialContext) -> dict[str, Any]:
    """Runs the trial, publishes its files, and returns the content of result.json.

    Raises:
        TrialError: a failure of a known kind. StopRequestedError leaves a checkpoint; after StorageError the files are as they
            were; all other errors, also those of other types, leave error.json with a traceback.
    """
    finished = group_of(context.runtime).of_first(lambda: finished_result(context))
    if finished is not None:
        remove_leftovers(context)
        return finished
    try:
        result = TrialRunner(config, context).run()
        remove_private_snapshots(context)
        return result
    except (StopRequestedError, StaleAttemptError, StorageError, WorkerLostError):
        raise
    except Exception as error:
        publish_error(context.files, error)
        raise


class TrialRunner:
    """The phases of one trial; each method advances its state.

    Attributes:
        config: as asked for, until the trial has chosen the length of its warm-up or its iterations; then with these.
    """

    def __init__(self, config: TrialConfig, context: TrialContext) -> None:
        self.config = config
        self.context = context
        self.files = context.files
        self.runtime = context.runtime
        self.group = group_of(context.runtime)
        self.publisher = TrialPublisher(config, context)
        context.runtime.activate()
        context.custom_files.import_modules(config)
        self.data: Data = load_data(config.dataset, context.source, context.runtime.device, context.runtime.threads)
        self.warmup = WarmupTrainer(
            config=config,
            data=self.data,
            runtime=context.runtime,
            snapshots=context.snapshots,
            snapshot_seconds=context.checkpoint_seconds,
            after_epoch=self.publisher.at_boundary,
            custom_files=context.custom_files,
        )

    @cached_property
    def selection(self) -> Selection:
        return selection_of(self.config, self._network, self.data.image_shape, self.context.custom_files)

    @cached_property
    def _network(self) -> nn.Module:
        return network_of(self.config, self.data.image_shape, self.data.num_classes)

    def run(self) -> dict[str, Any]:
        self.publisher.config_file()
        # Errors of prunable.exclude and of custom functions are reported here, before the warm-up.
        network = self._network
        weights = prunable_weights(network, self.config.prunable.exclude)
        check_kept_weights(self.config, {name: tuple(weight.shape) for name, weight in weights.items()})
        for finding in unprunable_layers(network, self.config.prunable.exclude):
            raise ConfigError(f"model: {finding}")
        check_loss(self.config.training.loss, self.data.num_classes, self.data.train.labels.device, self.group.workers)
        if self.group.workers > 1 and self.config.pruning.needs_whole_batches:
            raise ConfigError(
                f"method: {self.config.method} must have one worker, as its loss is one of whole batches, got "
                f"{self.group.workers} workers",
                "write gpus_per_trial: 1, or workers_per_trial: 1 on CPUs",
            )
        updater_class(self.config).check(network, self.config, self.selection.units, self.data.image_shape)
        if self.config.compensates:
            assert self.selection.units is not None
            require_images(network, self.selection.units, self.data.image_shape, self._images_to_fit())
        del network, weights, self._network  # its memory, for the training
        state = self._resume() or self._start_pruning()
        if self.runtime.fingerprint() not in state.fingerprints:
            state.fingerprints.append(self.runtime.fingerprint())
        while state.phase == "prune":
            self._prune_one_round(state)
        while state.phase == "level":
            self._train_one_level_epoch(state)
        while state.position < self.config.sparse_epochs:
            self._train_one_epoch(state)
        self._apply_masks(state)  # -0.0 becomes 0.0
        if self.config.is_dense:  # trained with its blocks to the end
            state.model = without_blocks(state.model, self.config.block)
            state.masks = full_masks(prunable_weights(state.model, self.config.prunable.exclude))
        network = self.runtime.to_device(
            self.selection.finished(state.model, state.masks)
        )  # in the memory order of a loaded one
        state.metrics.record(self.config.total_epochs, self._test(network))
        if not self.group.is_first:
            return {}
        return self.publisher.result(state, network, self.data, self.config)

    def _resume(self) -> TrialState | None:
        """The state of the trial's checkpoint; None if it does not exist or is damaged, so that the trial starts again."""
        content = self.group.of_first(lambda: self.files.read(CHECKPOINT))
        if content is None:
            return None
        network = (dense_network_of if self.config.is_dense else network_of)(
            self.config, self.data.image_shape, self.data.num_classes
        )
        try:
            state = from_bytes(content, self.runtime.to_device(network), self.config.training, self.files.key)
        except DamagedCheckpointError:
            self.files.remove(CHECKPOINT)
            return None
        self.config = with_choices(self.config, state.choices)
        self._use_coefficients(state)
        self.publisher.keep_published_points(state)
        self.publisher.at_resume(state)
        return state

    def _start_pruning(self) -> TrialState:
        """The state after the warm-up, with its first masks; that of sparse training for methods without rounds."""
        chosen = self._choose_warmup() if self.config.warmup.auto else None
        for length in self.config.warmup_lengths:
            if length < self.config.warmup_epochs:  # a rewind will need the snapshot
                self.warmup.state_at(length)
        state = self.warmup.state_at(self.config.warmup_epochs)
        if self.config.block != "plain" and not self.config.is_dense:
            state.model = without_blocks(state.model, self.config.block)
            state.optimizer = make_optimizer(state.model, self.config.training)
        if chosen is not None:
            record_warmup(state, chosen)
        self.publisher.keep_published_points(state)
        state.phase, state.position = "level" if self.config.pruning.course is Course.LEVELS else "prune", 0
        if not self.config.pruning.course.ends_before_training or self.config.rounds == 0:
            state.masks = updater_class(self.config).initial_masks(state.model, self.config)
            state.metrics.record(0, {"prune/sparsity": 0.0} if self.config.is_dense else mask_metrics(state.masks))
            self._start_training(state)
            return state
        state.masks = full_masks(prunable_weights(state.model, self.config.prunable.exclude))
        if state.phase == "prune":
            self._record_accuracy(state, 0, "before")
        else:  # every level starts without momentum, the first one too
            state.optimizer = make_optimizer(state.model, self.config.training)
        return state

    def _choose_warmup(self) -> ChosenWarmup:
        """The length of the automatic warm-up, which the configuration has from now on."""
        auto = AutoWarmup(trainer=self.warmup, counts_of=self.context.counts_of)
        (chosen,) = auto.choose([warmup_rule(self.config)])
        self.config = with_choices(self.config, {WARMUP: chosen.choice})
        return chosen

    def _choose_iterations(self, state: TrialState) -> None:
        with timed(state, "prune"):
            chosen = choose_iterations(
                state.model,
                self.data,
                self.config,
                self.runtime,
                self.context.counts_of,
                self.selection,
                after_round=self.publisher.require_no_stop,
            )
        record_iterations(state, chosen)
        self.config = with_choices(self.config, state.choices)

    def _search_layers(self, state: TrialState) -> None:
        """Searches for the coefficients of SPDY, which all rounds use."""
        assert isinstance(self.selection, SpdySelection)
        with timed(state, "prune"):
            search_layers(state, self.data, self.config, self.runtime, self.context.counts_of, self.selection)
            state.coefficients = self.group.of_first(lambda: state.coefficients)
        self._use_coefficients(state)

    def _use_coefficients(self, state: TrialState) -> None:
        if state.coefficients:
            assert isinstance(self.selection, SpdySelection)
            self.selection = self.selection.with_coefficients(state.coefficients)

    def _prune_one_round(self, state: TrialState) -> None:
        if self.config.searches_layers and not state.coefficients:
            self._search_layers(state)
        if self.config.iterations.auto:
            self._choose_iterations(state)
        self._score_and_mask(state, state.position + 1)
        state.position += 1
        if state.position == self.config.rounds:
            if self.config.compensates:
                self._compensate(state)
            if self.config.searches_layers:
                self._reconstruct(state)
            self._record_accuracy(state, state.position, "after")
            self._start_training(state)
        self.publisher.at_boundary(state, phase_ends=state.phase == "train")

    def _train_one_level_epoch(self, state: TrialState) -> None:
        """One epoch of iterative magnitude pruning; at the end of a level it prunes and rewinds (arXiv:1903.01611)."""
        config = self.config
        with timed(state, "prune"):
            self._advance_sparse_epoch(state, state.position % config.sparse_epochs)
        level, rest = divmod(state.position, config.sparse_epochs)
        if rest == 0:
            self._record_accuracy(state, level, "before")
            self._score_and_mask(state, level)
            self._record_accuracy(state, level, "after")
            if level == config.rounds:
                self._start_training(state)
            else:
                self._restore_weights(state, config.warmup_epochs)
        self.publisher.at_boundary(state, phase_ends=state.phase == "train")

    def _score_and_mask(self, state: TrialState, round_: int) -> None:
        with timed(state, "prune"):
            weights = prunable_weights(state.model, self.config.prunable.exclude)
            state.masks, metrics, state.layer_scores = prune_round(
                *(state.model, weights, state.masks, self.data, self.config, round_, self.runtime),
                self.context.counts_of,
                self.selection,
            )
            self._apply_masks(state)
            state.metrics.record(round_, metrics)

    def _images_to_fit(self) -> int:
        images, batch_size = len(self.data.train), self.config.training.batch_size
        return batches_to_fit(images, batch_size) * min(images, batch_size)

    def _compensate(self, state: TrialState) -> None:
        """Fits the layers that read removed channels, from the weights at the end of the warm-up."""
        config, data = self.config, self.data
        assert isinstance(self.selection, ChannelSelection)
        with timed(state, "prune"):
            dense = without_blocks(self.warmup.state_at(config.warmup_epochs).model, config.block)
            count = batches_to_fit(len(data.train), config.training.batch_size)
            batches = scoring_batches(data, config.training.batch_size, count, config.seed, 0)
            error = self.selection.fit_to_remaining(state.model, dense, state.masks, [images for images, _ in batches])
            self._take_fitted(state)
            self._apply_masks(state)
        state.metrics.record(state.position, {"prune/compensation_error": error})

    def _reconstruct(self, state: TrialState) -> None:
        """Fits the layers to what they made at the end of the warm-up (pruning/adaprune.py)."""
        assert isinstance(self.selection, SpdySelection)
        with timed(state, "prune"):
            dense = without_blocks(self.warmup.state_at(self.config.warmup_epochs).model, self.config.block)
            reconstruct_layers(*(state, dense, self.data, self.config, self.runtime, self.context.counts_of, self.selection))
            self._take_fitted(state)

    def _take_fitted(self, state: TrialState) -> None:
        """Takes the first worker's weights, since each has fitted them by itself."""
        self.group.take_first_([*state.model.parameters(), *state.model.buffers()])

    def _record_accuracy(self, state: TrialState, step: int, when: str) -> None:
        """Records the validation accuracy right before or after pruning; not timed, since no method needs it."""
        metrics = evaluate_raw(state.model, self.data.validation, self.data.normalization, self.runtime)
        accuracies = {f"prune/val_{name}_{when}": value for name, value in metrics.items() if name != "loss"}
        state.metrics.record(step, accuracies)

    def _start_training(self, state: TrialState) -> None:
        """Sets the weights that sparse training starts from, those after pruning or of an earlier epoch, without momentum."""
        config = self.config
        if config.sanity.shuffle:
            state.masks = self.selection.shuffled(state.masks, config.seed)
        if config.sanity.reinitialize:
            self._restore_weights(state, None)
        elif config.rewind_epoch is not None:
            self._restore_weights(state, config.rewind_epoch)
        elif config.sanity.shuffle:  # the shuffled mask keeps weights that were pruned
            self._restore_weights(state, config.warmup_epochs)
        else:
            self._apply_masks(state)
            state.optimizer = make_optimizer(state.model, config.training)
        state.phase, state.position = "train", 0

    def _restore_weights(self, state: TrialState, epoch: int | None) -> None:
        """Sets the masked weights and BN buffers of a warm-up epoch, or of a new initialisation (None), without momentum."""
        if epoch is None:
            other = replace(self.config, seed=derived_seed(self.config.seed, "reinitialize"))
            network = initialized_network(other, self.data.image_shape, self.data.num_classes)
        else:
            network = self.warmup.state_at(epoch).model
        state.model.load_state_dict(without_blocks(network, self.config.block).state_dict())
        self._apply_masks(state)
        state.optimizer = make_optimizer(state.model, self.config.training)

    def _apply_masks(self, state: TrialState) -> None:
        masks = self.selection.with_other_tensors(state.masks, state.model)
        apply_masks({name: value for name, value in state.model.named_parameters() if name in masks}, masks)

    def _train_one_epoch(self, state: TrialState) -> None:
        config = self.config
        with timed(state, "train"):
            metrics, updater = self._advance_sparse_epoch(state, state.position)
            metrics |= validate(state, updater, self.data, config, self.runtime)
        state.updater = updater.finish()
        step = config.warmup_epochs + state.position
        if config.pruning.course.is_during_training:
            state.masks = {name: updater.masks[name] for name in state.masks}
            metrics |= mask_metrics(state.masks) | updater.metrics
        state.metrics.record(step, metrics)
        if state.position < config.sparse_epochs:
            self.publisher.at_boundary(state)

    def _advance_sparse_epoch(self, state: TrialState, done: int) -> tuple[dict[str, float], MaskUpdater]:
        """Trains one epoch, after `done` others of the sparse training or of a level."""
        config = self.config
        steps = len(self.data.train) // config.training.batch_size
        training = SparseTraining(
            model=state.model,
            optimizer=state.optimizer,
            masks=self.selection.with_other_tensors(state.masks, state.model),
            config=config,
            first_step=done * steps,
            steps=config.sparse_epochs * steps,
            selection=self.selection,
            state=state.updater,
            pass_over_images=partial(evaluate_raw, state.model, self.data.train, self.data.normalization, self.runtime.alone()),
        )
        updater = updater_class(config).start(training)
        metrics = advance_epoch(
            state,
            updater,
            self.data,
            config,
            self.runtime,
            lr=learning_rate(done + (config.warmup_epochs if config.training.budget == "total" else 0), config.training),
            epoch=config.warmup_epochs + done,
            first_step=done * steps,
        )
        return metrics, updater

    def _test(self, network: nn.Module) -> dict[str, float]:
        normalization, loss = self.data.normalization, self.config.training.loss
        return evaluate(network, self.data.test, normalization, self.runtime, "test", loss)
