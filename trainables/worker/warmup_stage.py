"""The stage of a shared warm-up: trains it and reports its snapshots, so that its trials can start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trainables.config.keys import from_canonical
from trainables.config.trial import TrialConfig
from trainables.custom.references import without_method
from trainables.data.source import DatasetSource
from trainables.data.splits import load_data
from trainables.errors import OtherWorkerError, StopRequestedError, StorageError, TrialError, WorkerLostError
from trainables.models.losses import check_loss
from trainables.runtime.device import Runtime
from trainables.runtime.group import group_of
from trainables.trial.auto_warmup import AutoWarmup
from trainables.trial.checkpoint import TrialState, to_bytes
from trainables.trial.warmup import WarmupTrainer
from trainables.worker.progress import ProgressReporter
from trainables.worker.stage import Stage, SweepSettings

ENDING = (StopRequestedError, StorageError, WorkerLostError, OtherWorkerError)  # errors that are no rule's


def run_warmup(
    stage: Stage,
    config: TrialConfig,
    runtime: Runtime,
    source: DatasetSource,
    settings: SweepSettings,
    reporter: ProgressReporter,
) -> dict[str, Any]:
    """Trains the warm-up to its longest length, or until every rule has chosen one, and reports each published snapshot."""
    rules = [from_canonical(TrialConfig, rule) for rule in stage.rules]
    for one in (without_method(config), *rules):
        settings.custom_files.import_modules(one)
    lengths = sorted(set(stage.lengths) - {rule.warmup_epochs for rule in rules})
    snapshots = settings.folders.warmups(stage.key, runtime.fingerprint_id())
    group, trained = group_of(runtime), 0

    def after_epoch(state: TrialState) -> None:
        nonlocal trained
        trained += 1
        reporter.progress(state)
        if group.of_first(settings.folders.stop_requested):
            snapshots.publish(state.position, to_bytes(state, snapshots.key))
            raise StopRequestedError(f"warm-up stopped after epoch {state.position}")

    warmup = WarmupTrainer(
        config=config,
        data=load_data(config.dataset, source, runtime.device, runtime.threads),
        runtime=runtime,
        snapshots=snapshots,
        snapshot_seconds=settings.checkpoint_seconds,
        after_epoch=after_epoch,
        custom_files=settings.custom_files,
    )
    check_loss(config.training.loss, warmup.data.num_classes, warmup.data.train.labels.device, group.workers)
    for length in lengths:
        state = warmup.state_at(length)
        reporter.progress(state, force=True)
    if rules:
        auto = AutoWarmup(trainer=warmup, counts_of=settings.folders.layer_counts)
        state = warmup.state_at(max(_choose_lengths(auto, rules, reporter)))
    return {
        "phase": "warmup",
        "position": state.position,
        "trained_epochs": trained,
        "points": reporter.new_points(state),
        "seconds": state.seconds["warmup"],
    }


def _choose_lengths(auto: AutoWarmup, rules: Sequence[TrialConfig], reporter: ProgressReporter) -> list[int]:
    """The lengths that the rules choose. One that cannot read its mask is left to its own trials, which fail by themselves.

    Raises:
        TrialError: no rule can choose.
    """
    try:
        return [one.choice.value for one in auto.choose(rules)]
    except ENDING:
        raise
    except TrialError as error:
        lengths, failure = [], error
    for rule in rules if len(rules) > 1 else ():
        try:
            lengths += [one.choice.value for one in auto.choose([rule])]
        except ENDING:
            raise
        except TrialError as error:
            reporter.lines.append(f"{rule.method} at sparsity {rule.sparsity!r} cannot read its mask: {error}")
    if not lengths:
        raise failure
    return lengths
