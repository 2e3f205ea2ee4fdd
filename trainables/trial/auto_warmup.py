"""The automatic warm-up: dense training that ends when the mask is stable, for all trials that share it.

After each epoch the mask of every rule is computed on the side, without any effect on the training, so the snapshots are those
of a warm-up of fixed length. A rule is the part of a trial's configuration that decides its length (config/keys.py).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from trainables.config.automatic import WARMUP, Choice
from trainables.config.keys import warmup_rule_key
from trainables.config.metric_names import CHOSEN_WARMUP
from trainables.config.trial import TrialConfig
from trainables.errors import StopRequestedError
from trainables.models.blocks import without_blocks
from trainables.models.prunable import prunable_weights
from trainables.pruning.selection import Selection
from trainables.pruning.sparsity_distributions import LayerCounts
from trainables.pruning.virtual_masks import virtual_masks
from trainables.trial.checkpoint import TrialState
from trainables.trial.mask_stability import MaskHistory, Reading, channels_in, is_stable, stop_reason
from trainables.trial.selections import selection_of
from trainables.trial.warmup import WarmupTrainer
from trainables.trial.warmup_record import decode_rule, encode_rule


@dataclass(frozen=True, kw_only=True)
class ChosenWarmup:
    """The length of a rule's warm-up, with what was read after each epoch.

    Attributes:
        seconds: spent on scoring and comparing masks, which all rules of one method share.
    """

    choice: Choice
    readings: tuple[Reading, ...]
    seconds: float


@dataclass(kw_only=True)
class _Watch:
    """One rule, what it has read so far, and its choice."""

    rule: TrialConfig
    key: str
    history: MaskHistory
    choice: Choice | None = None
    seconds: float = 0.0

    @property
    def next_epoch(self) -> int:
        return len(self.history.readings)

    def decide(self) -> None:
        last = self.next_epoch - 1
        if is_stable(self.history.readings, self.rule) or last >= self.rule.warmup_epochs:
            self.choice = Choice(value=last, reason=stop_reason(self.history.readings, self.rule))


@dataclass(frozen=True, kw_only=True)
class AutoWarmup:
    """Trains a warm-up until every rule has chosen its length, and keeps a snapshot there.

    Attributes:
        counts_of: kept weights by layer of another trial, by its key.
    """

    trainer: WarmupTrainer
    counts_of: LayerCounts = field(default=lambda key: None)
    _selections: dict[object, Selection] = field(default_factory=dict)

    def choose(self, rules: Sequence[TrialConfig]) -> list[ChosenWarmup]:
        """The length that each rule chooses; what is recorded is not read again.

        Raises:
            NonFiniteError: the loss diverged, or a score is not finite.
            StopRequestedError: of the trainer's `after_epoch`; what was read is recorded.
        """
        first = self.trainer.state_at(0)
        watches = [self._watch(rule, first) for rule in rules]
        undecided = [watch for watch in watches if watch.choice is None]
        if undecided:
            start = min(watch.next_epoch for watch in undecided)
            self._train(self.trainer.state_at(start) if start else first, undecided)
        return [
            ChosenWarmup(choice=watch.choice, readings=tuple(watch.history.readings), seconds=watch.seconds)
            for watch in watches
            if watch.choice is not None
        ]

    def _train(self, state: TrialState, undecided: list[_Watch]) -> None:
        keeper, snapshots = self.trainer.keeper(), self.trainer.snapshots
        while True:
            self._read(state, [watch for watch in undecided if watch.next_epoch == state.position])
            decided = [watch for watch in undecided if watch.choice is not None]
            undecided = [watch for watch in undecided if watch.choice is None]
            exists = state.position in snapshots.epochs()
            if decided and not exists:
                keeper.keep(state)
            due = bool(decided) or (not exists and keeper.keep_if_due(state))
            self._record([*decided, *undecided] if due else [])
            if not undecided:
                return
            state = self.trainer.advance(state)
            try:
                self.trainer.after_epoch(state)
            except StopRequestedError:
                self._record(undecided)
                raise

    def _read(self, state: TrialState, watches: Sequence[_Watch]) -> None:
        """Reads the mask of each rule, and lets it decide."""
        if not watches:
            return
        started = time.perf_counter()
        rules = [watch.rule for watch in watches]
        network = without_blocks(state.model, self.trainer.config.block)
        masks = virtual_masks(
            *(network, self.trainer.data, rules, self.trainer.runtime, self.counts_of),
            selection_of=lambda rule: self._selection(rule, network),
        )
        for watch, mask in zip(watches, masks, strict=True):
            watch.history.add(channels_in(mask) if watch.rule.prunes_channels else mask)
            watch.decide()
        share = (time.perf_counter() - started) / len(watches)
        for watch in watches:
            watch.seconds += share

    def _selection(self, rule: TrialConfig, network: nn.Module) -> Selection:
        key = rule.granularity, rule.prunable, rule.quantity, rule.layer_sparsity
        if key not in self._selections:
            self._selections[key] = selection_of(rule, network, self.trainer.data.image_shape, self.trainer.custom_files)
        return self._selections[key]

    def _watch(self, rule: TrialConfig, state: TrialState) -> _Watch:
        key = warmup_rule_key(rule, self.trainer.custom_files.identities_of(rule))
        window, content = rule.warmup.window, self.trainer.snapshots.read_rule(key)
        recorded = None if content is None else decode_rule(content, key, window, _compared(state, rule))
        if recorded is None:
            return _Watch(rule=rule, key=key, history=MaskHistory(window=window))
        history, choice, seconds = recorded
        return _Watch(rule=rule, key=key, history=history, choice=choice, seconds=seconds)

    def _record(self, watches: Sequence[_Watch]) -> None:
        for watch in watches:
            content = encode_rule(watch.key, watch.history, watch.choice, watch.seconds)
            self.trainer.snapshots.publish_rule(watch.key, content)


def _compared(state: TrialState, rule: TrialConfig) -> Mapping[str, Tensor]:
    """Tensors with the shapes of the masks that are compared: of the prunable weights, or of their channels."""
    weights = prunable_weights(without_blocks(state.model, rule.block), rule.prunable.exclude)
    return {name: weight.flatten(1)[:, 0] for name, weight in weights.items()} if rule.prunes_channels else weights


def record_warmup(state: TrialState, chosen: ChosenWarmup) -> None:
    """Puts the choice and the curves behind it into the state of a trial; reading the masks counts as part of its warm-up."""
    for reading in chosen.readings:
        curves = {"warmup/mask_overlap": reading.overlap, "warmup/epi": reading.epi}
        state.metrics.record(reading.epoch, {name: value for name, value in curves.items() if value is not None})
    length = chosen.choice.value
    state.metrics.record(length, {CHOSEN_WARMUP: float(length), "warmup/reading_seconds": chosen.seconds})
    state.seconds["warmup"] += chosen.seconds
    state.choices[WARMUP] = chosen.choice
