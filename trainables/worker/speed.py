"""The time of an epoch and of a pruning round of a trial, from a few of its batches and rounds on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from torch import nn

from trainables.config.method import Course
from trainables.config.trial import TrialConfig
from trainables.data.normalization import EVALUATION_BATCH
from trainables.data.splits import Data, load_data
from trainables.data.staging import StagedDataset
from trainables.models.blocks import without_blocks
from trainables.models.prunable import prunable_weights
from trainables.models.registry import initialized_network
from trainables.pruning.masks import full_masks
from trainables.pruning.rounds import prune_round
from trainables.pruning.selection import Selection
from trainables.pruning.sparse_trainers import SparseTraining, updater_class
from trainables.runtime.device import Runtime
from trainables.runtime.group import group_of
from trainables.training.loop import evaluate_raw, train_epoch
from trainables.training.optimizer import make_optimizer
from trainables.trial.selections import selection_of

FEW_BATCHES = 2  # from which it follows how many fit into the time
PATIENCE = 10  # times the seconds of a measurement: a first batch that takes longer counts
STREAMED_BATCHES = 8  # at least, so that the start of the loaders can be told from the batches


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """Seconds of one epoch with its validation, and of one round of scoring and pruning; 0 where there are no rounds."""

    epoch_seconds: float
    round_seconds: float


def measure_speed(config: TrialConfig, source: StagedDataset, runtime: Runtime, seconds: float) -> Speed:
    """The speed of a trial when it has the device to itself; each of several workers measures in step with the others.

    Args:
        config: its custom modules must be imported.
        seconds: that each of the measurements may take, apart from its first batch or round, which counts only where it alone
            takes `PATIENCE` times as long.
    """
    runtime = runtime.for_trial(config.precision)
    runtime.activate()
    data = load_data(config.dataset, source.prepare(), runtime.device, runtime.threads)
    network = runtime.to_device(initialized_network(config, data.image_shape, data.num_classes))
    if not config.is_dense:
        network = without_blocks(network, config.block)
    selection = selection_of(config, network, data.image_shape)
    epoch = _epoch_seconds(config, data, network, selection, runtime, seconds)
    if config.pruning.course not in (Course.ONE_ROUND, Course.ROUNDS):
        return Speed(epoch_seconds=epoch, round_seconds=0.0)
    return Speed(epoch_seconds=epoch, round_seconds=_round_seconds(config, data, network, selection, runtime, seconds))


def _epoch_seconds(
    config: TrialConfig, data: Data, network: nn.Module, selection: Selection, runtime: Runtime, seconds: float
) -> float:
    batch_size = config.training.batch_size
    steps = len(data.train) // batch_size
    optimizer = make_optimizer(network, config.training)
    training = SparseTraining(
        model=network,
        optimizer=optimizer,
        masks=selection.with_other_tensors(full_masks(prunable_weights(network, config.prunable.exclude)), network),
        config=config,
        first_step=0,
        steps=max(1, config.sparse_epochs * steps),
        selection=selection,
        pass_over_images=partial(evaluate_raw, network, data.train.first(batch_size), data.normalization, runtime.alone()),
    )
    updater = updater_class(config).start(training)

    def train(batches: int) -> None:
        train_epoch(
            network,
            optimizer,
            updater,
            replace(data, train=data.train.first(batches * batch_size)),
            training=config.training,
            lr=0.0,  # a diverging loss would end the measurement
            seed=config.seed,
            epoch=0,
            runtime=runtime,
        )

    clock = _Clock(runtime, seconds)
    trained = _training_seconds(train, steps, data.train.stream is not None, clock)
    fitting = int(PATIENCE * seconds * steps * batch_size / trained)
    some = data.validation.first(min(4 * EVALUATION_BATCH, max(batch_size, fitting)))
    if not len(some):
        return trained
    evaluation = partial(evaluate_raw, network, some, data.normalization, runtime, config.training.loss)
    return trained + clock.mean_seconds(evaluation, seconds / 4) * len(data.validation) / len(some)


def _training_seconds(train: Callable[[int], None], steps: int, is_streamed: bool, clock: _Clock) -> float:
    """Seconds of an epoch of so many batches, from some of them."""
    few, few_seconds = 1, clock.seconds_of(partial(train, 1))
    if clock.is_slow(few_seconds):
        batches = min(steps, 1 + is_streamed)
    else:
        few = min(FEW_BATCHES, steps)
        few_seconds = clock.seconds_of(partial(train, few))
        batches = max(few, min(steps, int(clock.seconds * few / few_seconds)))
        if is_streamed:
            batches = max(batches, min(steps, STREAMED_BATCHES))
    seconds = clock.mean_seconds(partial(train, batches), clock.seconds)
    if is_streamed and batches > few and seconds > few_seconds:
        # Loaders start once an epoch, which a few batches must not count for each of thousands.
        return seconds + (seconds - few_seconds) / (batches - few) * (steps - batches)
    return seconds * steps / batches


def _round_seconds(
    config: TrialConfig, data: Data, network: nn.Module, selection: Selection, runtime: Runtime, seconds: float
) -> float:
    """The mean over the rounds after the first; of the first, if it is the only one."""
    weights = prunable_weights(network, config.prunable.exclude)
    masks, done = full_masks(weights), 0

    def prune() -> None:
        nonlocal masks, done
        if done == config.rounds:  # begins again; what was pruned stays zero, which takes the same time
            masks, done = full_masks(weights), 0
        done += 1
        masks, _, _ = prune_round(network, weights, masks, data, config, done, runtime, selection=selection)

    return _Clock(runtime, seconds).mean_seconds(prune, seconds)


@dataclass(frozen=True)
class _Clock:
    """Times calls; of several workers the clock of the first counts for all."""

    runtime: Runtime
    seconds: float

    def is_slow(self, seconds: float) -> bool:
        return seconds > PATIENCE * self.seconds

    def seconds_of(self, work: Callable[[], object]) -> float:
        start = self._now()
        work()
        return self._now() - start

    def mean_seconds(self, work: Callable[[], object], seconds: float) -> float:
        """Mean duration of a call, over as many as fit into the time, at least one; a first one counts only if it is slow."""
        first = self.seconds_of(work)
        if self.is_slow(first):
            return first
        total, calls = 0.0, 0
        while calls == 0 or total < seconds:
            total, calls = total + self.seconds_of(work), calls + 1
        return total / calls

    def _now(self) -> float:
        return group_of(self.runtime).of_first(time.perf_counter)
