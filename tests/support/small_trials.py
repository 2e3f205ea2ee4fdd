"""The trial that most tests run, on images of their own; also where pytest is not installed."""

from __future__ import annotations

from trainables.config.trial import DatasetConfig, TrainingConfig, TrialConfig


def small_trial(dataset: DatasetConfig) -> TrialConfig:
    """2 warm-up epochs, 2 rounds to 90 %, 2 sparse epochs."""
    return TrialConfig(
        dataset=dataset,
        model="convnet",
        warmup_epochs=2,
        prune_iterations=2,
        sparsity=0.9,
        precision="fp32",
        training=TrainingConfig(epochs=2, batch_size=20, lr=0.05),
    )
