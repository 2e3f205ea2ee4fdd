"""The dense warm-up that trials share: it leaves a snapshot at each length that some trial needs.

Sharing is exact because the warm-up's learning rate is constant, its data order depends on (seed, epoch) alone, and a snapshot
holds momentum. A missing length is trained from the nearest whole snapshot and published, so lost or damaged snapshots are
restored.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import nn

from trainables.config.trial import TrialConfig
from trainables.custom.files import NO_CUSTOM_FILES, CustomFiles
from trainables.data.splits import Data
from trainables.errors import ConfigError
from trainables.models.pretrained import load_initial_weights
from trainables.models.registry import dense_network_of, initialized_network
from trainables.pruning.sparse_trainers import MaskUpdater
from trainables.records.protocols import SnapshotFiles
from trainables.runtime.device import Runtime
from trainables.runtime.group import group_of
from trainables.runtime.hashing import tensors_sha256
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
        keeper = self.keeper()
        while state.position < length:
            self.train_one_epoch(state)
            if state.position == length:
                keeper.keep(state)
            else:
                keeper.keep_if_due(state)
            self.after_epoch(state)
        return state

    def keeper(self) -> SnapshotKeeper:
        return SnapshotKeeper(snapshots=self.snapshots, seconds=self.snapshot_seconds)

    def advance(self, state: TrialState) -> TrialState:
        """The state one epoch later: from its snapshot if there is one, otherwise trained, in place."""
        return self._snapshot(state.position + 1) or self.train_one_epoch(state)

    def _nearest(self, length: int) -> TrialState:
        """The state of the longest whole snapshot up to `length`; the initialisation if there is none."""
        for epoch in reversed([epoch for epoch in self.snapshots.epochs() if epoch <= length]):
            if state := self._snapshot(epoch):
                return state
        # Before it is moved to the device: random numbers are drawn in the order of the memory format.
        network = initialized_network(self.config, self.data.image_shape, self.data.num_classes)
        if self.config.initial_weights:
            load_initial_weights(network, self.custom_files)
        network = self.runtime.to_device(network)
        self._require_one_start(network)
        return TrialState(model=network, optimizer=make_optimizer(network, self.config.training))

    def _require_one_start(self, network: nn.Module) -> None:
        """Raises ConfigError if another worker has built another network."""
        if (group := group_of(self.runtime)).workers == 1:
            return
        digest = tensors_sha256({name: tensor.detach().cpu() for name, tensor in network.state_dict().items()})
        if len(set(group.of_all(digest))) > 1:
            raise ConfigError(
                f"model: {self.config.model} must have the same initial weights in every process, got others on other workers",
                "draw them with torch alone, and go through no set of strings, whose order differs between processes",
            )

    def _snapshot(self, epoch: int) -> TrialState | None:
        """The state of a snapshot; None if there is none or it is damaged, and then removed."""
        content = self.snapshots.read(epoch)
        if content is None:
            return None
        try:
            network = self.runtime.to_device(self._network())
            state = from_bytes(content, network, self.config.training, self.snapshots.key)
            if (state.phase, state.position) != ("warmup", epoch):
                raise DamagedCheckpointError(f"it is of phase {state.phase}, position {state.position}")
        except DamagedCheckpointError as error:
            log.warning("warm-up snapshot of epoch %d is damaged and is computed again: %s", epoch, error)
            self.snapshots.remove(epoch)
            return None
        return state

    def _network(self) -> nn.Module:
        return dense_network_of(self.config, self.data.image_shape, self.data.num_classes)

    def train_one_epoch(self, state: TrialState) -> TrialState:
        """Trains the state in place, and returns it."""
        updater, config = MaskUpdater(), self.config
        with timed(state, "warmup"):
            metrics = advance_epoch(state, updater, self.data, config, self.runtime, lr=config.warmup_lr, epoch=state.position)
            metrics |= validate(state, updater, self.data, config, self.runtime)
        state.metrics.record(state.position, metrics)
        fingerprint = self.runtime.fingerprint()
        if fingerprint not in state.fingerprints:
            state.fingerprints.append(fingerprint)
        return state


@dataclass(kw_only=True)
class SnapshotKeeper:
    """Publishes snapshots, of epochs that no trial needs only the latest, to survive a crash.

    Attributes:
        seconds: time after the last one from which on another is due.
    """

    snapshots: SnapshotFiles
    seconds: float
    last_publish: float = field(default_factory=time.monotonic)
    intermediate: int | None = None

    def keep(self, state: TrialState) -> None:
        """Publishes the snapshot of an epoch that a trial needs."""
        self._publish(state)
        self.intermediate = None

    def keep_if_due(self, state: TrialState) -> bool:
        """Publishes the snapshot if it is time for one; whether it did."""
        if time.monotonic() - self.last_publish < self.seconds:
            return False
        self._publish(state)
        self.intermediate = state.position
        return True

    def _publish(self, state: TrialState) -> None:
        self.snapshots.publish(state.position, to_bytes(state, self.snapshots.key))
        self.last_publish = time.monotonic()
        if self.intermediate is not None:
            self.snapshots.remove(self.intermediate)
