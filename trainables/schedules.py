"""Density after pruning round k and learning rate at epoch t: pure functions of the configuration.

Density is kept weights over prunable weights, in [0, 1].
"""

from __future__ import annotations

import math

from trainables.config import DensitySchedule, TrainingConfig, final_count


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


def learning_rate(epoch: int, training: TrainingConfig) -> float:
    """Rate of epoch `epoch` (0-based) of the schedule: lr * gamma^(milestones reached)."""
    milestones = training.milestones
    if milestones is None:
        milestones = tuple({training.epochs // 2, training.epochs * 3 // 4} - {0})  # one epoch trains at the full rate
    return training.lr * training.gamma ** sum(epoch >= milestone for milestone in milestones)
