"""Density after pruning round k and learning rate at epoch t: pure functions of the configuration.

Density is kept weights over prunable weights, in [0, 1].
"""

from __future__ import annotations

import math

from trainables.config import TrainingConfig, final_count
from trainables.method_config import DensitySchedule


def kept_after_round(round_: int, rounds: int, sparsity: float, prunable: int, schedule: DensitySchedule) -> int:
    """Weights kept after round `round_` (1-based) of `rounds`; the last round lands exactly on `final_count`.

    With final density d: exponential d^(k/N), linear 1 - (1 - d) k/N, each rounded half up and never below the final count.
    The paper's text names neither; exponential is SynFlow's (arXiv:2006.05467, algorithm 1).
    """
    assert 1 <= round_ <= rounds, f"round {round_} of {rounds}"
    final = final_count(sparsity, prunable)
    if round_ == rounds:
        return final
    density = 1.0 - sparsity
    progress = round_ / rounds
    share = density**progress if schedule == "exponential" else 1.0 - (1.0 - density) * progress
    return min(prunable, max(final, math.floor(share * prunable + 0.5)))


def kept_on_cubic(round_: int, rounds: int, first_sparsity: float, sparsity: float, prunable: int) -> int:
    """Weights kept after update `round_` (0 is before the first) of `rounds` on the way from one sparsity to another.

    s_k = s + (s_0 - s) (1 - k/N)^3 (Zhu and Gupta, arXiv:1710.01878, equation 1), rounded half up; the last lands exactly on
    `final_count`. Where it begins beyond the target, it is the target at once.
    """
    assert 0 <= round_ <= rounds, f"update {round_} of {rounds}"
    final = final_count(sparsity, prunable)
    share = 1.0 - (sparsity + (first_sparsity - sparsity) * (1 - round_ / rounds) ** 3)
    return final if round_ == rounds else min(prunable, max(final, math.floor(share * prunable + 0.5)))


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
