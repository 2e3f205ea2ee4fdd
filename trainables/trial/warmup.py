"""The dense warm-up, shared: a trunk leaves a snapshot at each length that some trial asks for.

Sharing is exact because the warm-up's rate is constant, its data order depends on (seed, epoch) alone, and a snapshot holds
momentum. Whoever needs a length and does not find it goes on from the nearest whole snapshot and publishes what it
trained, so a lost or damaged snapshot heals.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from trainables.config.trial import TrialConfig
from trainables.custom.files import NO_CUSTOM_FILES, CustomFiles
from trainables.data.splits import Data
from trainables.models.pretrained import load_initial_weights
from trainables.models.registry import initialized_network, network_of
from trainables.pruning.sparse_trainers import MaskUpdater
from trainables.records.protocols import SnapshotFiles
from trainables.runtime.device import Runtime
from trainables.training.loop import evaluate, train_epoch
from trainables.training.optimizer import make_optimizer
from trainables.trial.checkpoint import DamagedCheckpointError, TrialState, from_bytes, to_bytes

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class WarmupTrainer:
    """One dense trunk: what it trains, and where its snapshots lie.

    Attributes:
        config: any trial of the trunk's warm-up key; they all begin alike.
        snapshot_seconds: training time after which an epoch that no trial asked for is kept too, to survive a crash.
        after_epoch: called with the state after each trained epoch; may raise to stop.
        own: where the weights lie that the trunk starts from, if they are the user's own.
    """

    config: TrialConfig
    data: Data
    runtime: Runtime
    snapshots: SnapshotFiles
    snapshot_seconds: float
    after_epoch: Callable[[TrialState], None]
    custom_files: CustomFiles = NO_CUSTOM_FILES

    def state_at(self, length: int) -> TrialState:
        """The state after `length` dense epochs, trained from the nearest snapshot where it is missing.

        A snapshot of it is there afterwards. Length 0 is the initialisation, or the user's own weights.

        Raises:
            NonFiniteError: the loss diverged.
            ConfigError: the user's own network or weights are not what they must be.
        """
        state = self._nearest(length)
        last_publish = time.monotonic()
        unasked: int | None = None
        while state.position < length:
            self._train_one_epoch(state)
            due = time.monotonic() - last_publish >= self.snapshot_seconds
            if state.position == length or due:
                self.snapshots.publish(state.position, to_bytes(state, self.snapshots.key))
                last_publish = time.monotonic()
                if unasked is not None:
                    self.snapshots.remove(unasked)
                unasked = state.position
            self.after_epoch(state)
        return state

    def _nearest(self, length: int) -> TrialState:
        """The state of the longest whole snapshot up to `length`; the initialisation if there is none."""
        for epoch in reversed([epoch for epoch in self.snapshots.epochs() if epoch <= length]):
            content = self.snapshots.read(epoch)
            if content is None:
                continue
            try:
                network = self.runtime.to_device(self._network())
                state = from_bytes(content, network, self.config.training, self.snapshots.key)
            except DamagedCheckpointError as error:
                log.warning("warm-up snapshot of epoch %d is damaged and is made again: %s", epoch, error)
                self.snapshots.remove(epoch)
                continue
            if state.phase == "warmup" and state.position == epoch:
                return state
        # Before it is placed: random numbers are drawn in memory order.
        network = initialized_network(self.config, self.data.image_shape, self.data.num_classes)
        if self.config.initial_weights:
            load_initial_weights(network, self.custom_files)
        network = self.runtime.to_device(network)
        return TrialState(model=network, optimizer=make_optimizer(network, self.config.training))

    def _network(self) -> nn.Module:
        return network_of(self.config, self.data.image_shape, self.data.num_classes)

    def _train_one_epoch(self, state: TrialState) -> None:
        begun = time.perf_counter()
        told = train_epoch(
            state.model,
            state.optimizer,
            MaskUpdater(),
            self.data,
            training=self.config.training,
            lr=self.config.warmup_lr,
            seed=self.config.seed,
            epoch=state.position,
            runtime=self.runtime,
        )
        state.position += 1
        told |= evaluate(
            state.model, self.data.validation, self.data.normalization, self.runtime, "val", self.config.training.loss
        )
        state.seconds["warmup"] += time.perf_counter() - begun
        state.metrics.record(state.position, told)
        fingerprint = self.runtime.fingerprint()
        if fingerprint not in state.fingerprints:
            state.fingerprints.append(fingerprint)
