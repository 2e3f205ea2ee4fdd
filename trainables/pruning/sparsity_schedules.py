"""Sparsity schedules: the density after each pruning round.

Density is kept weights over prunable weights, in [0, 1].
"""

from __future__ import annotations

import math

from trainables.config.counts import kept_count
from trainables.config.options import DensitySchedule, Rounds
from trainables.config.trial import TrialConfig


def kept_after(round_: int, config: TrialConfig, prunable: int) -> int:
    """Weights that a trial keeps after a round; all after round 0."""
    if round_ == 0:
        return prunable
    after_level = config.options.kept_after_level(round_, prunable)
    if after_level is not None:
        return after_level
    return kept_after_round(round_, config.rounds, config.sparsity, prunable, schedule_of(config))


def schedule_of(config: TrialConfig) -> DensitySchedule:
    """How the density of a trial falls; methods with one round have no schedule."""
    return config.options.density_schedule if isinstance(config.options, Rounds) else "exponential"


def share_after_round(round_: int, rounds: int, sparsity: float, schedule: DensitySchedule) -> float:
    """Density after round `round_` (1-based) of `rounds`: with final density d exponential d^(k/N), linear 1 - (1 - d) k/N."""
    density, progress = 1.0 - sparsity, round_ / rounds
    return density**progress if schedule == "exponential" else 1.0 - (1.0 - density) * progress


def kept_after_round(round_: int, rounds: int, sparsity: float, prunable: int, schedule: DensitySchedule) -> int:
    """Weights kept after round `round_` (1-based) of `rounds`; the last reaches `kept_count` exactly.

    With final density d: exponential d^(k/N), linear 1 - (1 - d) k/N, each rounded half up and never below the final count.
    The paper names neither; exponential is SynFlow's (arXiv:2006.05467, algorithm 1).
    """
    assert 1 <= round_ <= rounds, f"round {round_} of {rounds}"
    final = kept_count(sparsity, prunable)
    if round_ == rounds:
        return final
    share = share_after_round(round_, rounds, sparsity, schedule)
    return min(prunable, max(final, math.floor(share * prunable + 0.5)))


def kept_on_cubic_schedule(round_: int, rounds: int, first_sparsity: float, sparsity: float, prunable: int) -> int:
    """Weights kept after update `round_` (0 is before the first) of `rounds` from `first_sparsity` to `sparsity`.

    s_k = s + (s_0 - s) (1 - k/N)^3 (Zhu and Gupta, arXiv:1710.01878, equation 1), rounded half up; the last reaches
    `kept_count` exactly. If `first_sparsity` is beyond the target, every update is at the target.
    """
    assert 0 <= round_ <= rounds, f"update {round_} of {rounds}"
    final = kept_count(sparsity, prunable)
    share = 1.0 - (sparsity + (first_sparsity - sparsity) * (1 - round_ / rounds) ** 3)
    return final if round_ == rounds else min(prunable, max(final, math.floor(share * prunable + 0.5)))


def remaining_share(config: TrialConfig, round_: int) -> float:
    """Of what the sparsity is a share of, what remains after a round (1-based); after the last exactly the trial's target."""
    if round_ < config.rounds:
        return share_after_round(round_, config.rounds, config.sparsity, schedule_of(config))
    return 1 - config.sparsity if config.target.latency is None else config.target.latency
