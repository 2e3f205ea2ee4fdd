"""How long a stage will take, by what the checks before the sweep measured; for the watchdog, so a rough figure is enough."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from orchestrator.planning.durations import trial_work
from orchestrator.planning.plan import Plan
from orchestrator.preflight.data import reading_seconds
from orchestrator.preflight.networks import step_seconds
from orchestrator.scheduling.queued_stage import QueuedStage
from orchestrator.state.sweep_folder import SweepFolder
from trainables.config.keys import from_canonical
from trainables.config.trial import TrialConfig
from trainables.data.facts import DataFacts
from trainables.data.split_counts import split_counts
from trainables.errors import DataError, StorageError
from trainables.preflight.network_case import case_id


@dataclass
class PredictedDurations:
    """Reads the sweep's folder when the first stage begins: then its networks are checked."""

    plan: Plan
    folder: SweepFolder

    def __call__(self, stage: QueuedStage) -> float | None:
        """Seconds of the stage: its steps, its scores and the reading of its data; None if its network was not measured."""
        config = from_canonical(TrialConfig, stage.config)
        try:
            step_s = self._step_seconds.get(case_id(config))
            if step_s is None or self.plan.data_facts is None:
                return None
            steps = training_steps(config, stage, self.plan.data_facts)
            return step_s * steps + reading_seconds(self.plan, self.folder.storage, config.dataset)
        except StorageError:
            return None

    @cached_property
    def _step_seconds(self) -> dict[str, float]:
        return step_seconds(self.folder)


def training_steps(config: TrialConfig, stage: QueuedStage, facts: DataFacts) -> float:
    """Passes of a batch in a stage: those of its epochs, and those of the scores of its rounds."""
    try:
        counts = split_counts(config.dataset, facts.train_counts, facts.test_counts)
    except DataError:  # the stage raises it again
        return 0.0
    batch_size = config.training.batch_size
    in_epoch = sum(counts.train) / batch_size
    if stage.is_warmup:
        return in_epoch * stage.longest
    work = trial_work(config, trains_warmup=stage.warmup_key is None)
    per_class = getattr(config.options, "images_per_class", None)
    batches = getattr(config.options, "score_batches", 1) if per_class is None else per_class * len(counts.train) / batch_size
    return in_epoch * work.epochs + max(1.0, batches) * work.rounds
