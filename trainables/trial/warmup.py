"""The dense warm-up that trials share: it leaves a snapshot at each length that some trial needs.

Sharing is exact because the warm-up's learning rate is constant, its data order depends on (seed, epoch) alone, and a snapshot
holds momentum. A missing length is trained from the nearest whole snapshot and published, so lost or damaged snapshots are
restored.
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
from trainables.training.optimizer import make_optimizer
from trainables.trial.checkpoint import DamagedCheckpointError, TrialState, from_bytes, to_bytes
from trainables.trial.epoch import advance_epoch, timed, validate

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class WarmupTrainer:
    """Trains one dense warm-up and keeps its snapshots.

    Attributes:
        config: any trial of the warm-up key; they all start alike.
        snapshot_seconds: training time after which an epoch that no trial needs is kept too, to survive a crash.
        after_epoch: called with the state after each trained epoch; may raise to stop.
        custom_files: with the initial weights, if the user gave some.
    """

    config: TrialConfig
    data: Data
    runtime: Runtime
    snapshots: SnapshotFiles
    snapshot_seconds: float
    after_epoch: Callable[[TrialState], None]
    custom_files: CustomFiles = NO_CUSTOM_FILES

    def state_at(self, length: int) -> TrialState:
        """The state after `length` dense epochs, trained from the nearest snapshot and published where it is missing.

        Length 0 is the initialisation, or the user's initial weights.

        Raises:
            NonFiniteError: the loss diverged.
            ConfigError: the custom network or the initial weights are invalid.
        """
        state = self._nearest(length)
        last_publish = time.monotonic()
        intermediate: int | None = None
        while state.position < length:
            self._train_one_epoch(state)
            due = time.monotonic() - last_publish >= self.snapshot_seconds
            if state.position == length or due:
                self.snapshots.publish(state.position, to_bytes(state, self.snapshots.key))
                last_publish = time.monotonic()
                if intermediate is not None:
                    self.snapshots.remove(intermediate)
                intermediate = state.position
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
                log.warning("warm-up snapshot of epoch %d is damaged and is computed again: %s", epoch, error)
                self.snapshots.remove(epoch)
                continue
            if state.phase == "warmup" and state.position == epoch:
                return state
        # Before it is moved to the device: random numbers are drawn in the order of the memory format.
        network = initialized_network(self.config, self.data.image_shape, self.data.num_classes)
        if self.config.initial_weights:
            load_initial_weights(network, self.custom_files)
        network = self.runtime.to_device(network)
        return TrialState(model=network, optimizer=make_optimizer(network, self.config.training))

    def _network(self) -> nn.Module:
        return network_of(self.config, self.data.image_shape, self.data.num_classes)

    def _train_one_epoch(self, state: TrialState) -> None:
        updater, config = MaskUpdater(), self.config
        with timed(state, "warmup"):
            metrics = advance_epoch(state, updater, self.data, config, self.runtime, lr=config.warmup_lr, epoch=state.position)
            metrics |= validate(state, updater, self.data, config, self.runtime)
        state.metrics.record(state.position, metrics)
        fingerprint = self.runtime.fingerprint()
        if fingerprint not in state.fingerprints:
            state.fingerprints.append(fingerprint)
