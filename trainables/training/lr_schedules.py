"""Learning-rate schedules: the rate of an epoch as a pure function of the configuration."""

from __future__ import annotations

import math

from trainables.config.trial import TrainingConfig


def learning_rate(epoch: int, training: TrainingConfig) -> float:
    """Rate of epoch `epoch` (0-based) of the schedule.

    "milestones": lr * gamma^(milestones reached). "cosine": lr * (1 + cos(pi * epoch / epochs)) / 2 (arXiv:1608.03983, without
    restarts). Over the first `lr_warmup_epochs` both are multiplied by (epoch + 1) / lr_warmup_epochs.
    """
    rise = min(1.0, (epoch + 1) / training.lr_warmup_epochs) if training.lr_warmup_epochs else 1.0
    if training.schedule == "cosine":
        return training.lr * rise * (1 + math.cos(math.pi * epoch / training.epochs)) / 2
    milestones = training.milestones
    if milestones is None:
        milestones = tuple({training.epochs // 2, training.epochs * 3 // 4} - {0})  # one epoch trains at the full rate
    return training.lr * rise * training.gamma ** sum(epoch >= milestone for milestone in milestones)
