"""Density by round and learning rate by epoch, against closed forms."""

from __future__ import annotations

import math
from typing import Any, Literal

import pytest

from tests.support.trials import tiny_config
from trainables.config.counts import kept_count
from trainables.config.trial import TrainingConfig
from trainables.pruning.sparsity_schedules import kept_after_round
from trainables.training.lr_schedules import learning_rate

Schedule = Literal["exponential", "linear"]
SCHEDULES: tuple[Schedule, Schedule] = ("exponential", "linear")
PRUNABLE = 15_248


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("rounds", [1, 7, 100])
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 1 / 3, 0.9, 0.95, 0.98, 0.999, 0.999999])
def test_kept_after_round_decreases_to_the_target(schedule: Schedule, rounds: int, sparsity: float) -> None:
    kept = [kept_after_round(k, rounds, sparsity, PRUNABLE, schedule) for k in range(1, rounds + 1)]
    assert kept[-1] == kept_count(sparsity, PRUNABLE)
    assert kept == sorted(kept, reverse=True)
    assert kept[0] <= PRUNABLE


def test_exponential_schedule_is_a_power_of_the_final_density() -> None:
    # 10,000 weights to 1/16 in 4 rounds: a half in each.
    assert [kept_after_round(k, 4, 0.9375, 10_000, "exponential") for k in (1, 2, 3, 4)] == [5000, 2500, 1250, 625]


def test_linear_schedule_decreases_by_equal_steps() -> None:
    assert [kept_after_round(k, 4, 0.8, 10_000, "linear") for k in (1, 2, 3, 4)] == [8000, 6000, 4000, 2000]


def test_kept_after_round_rounds_half_up() -> None:
    # 5 weights to a quarter in 2 rounds: 2.5 and 1.25.
    assert [kept_after_round(k, 2, 0.75, 5, "exponential") for k in (1, 2)] == [3, 1]


@pytest.mark.parametrize("round_", [0, 5])
def test_kept_after_round_rejects_other_rounds(round_: int) -> None:
    with pytest.raises(AssertionError, match=f"round {round_} of 4"):
        kept_after_round(round_, 4, 0.9, 100, "linear")


def test_lr_falls_at_each_milestone() -> None:
    training = TrainingConfig(epochs=6, lr=1.0, milestones=(2, 4), gamma=0.5)
    assert [learning_rate(epoch, training) for epoch in range(6)] == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def test_default_milestones_are_half_and_three_quarters() -> None:
    training = TrainingConfig(epochs=8, lr=0.1)
    rates = [learning_rate(epoch, training) for epoch in range(8)]
    expected = [0.1] * 4 + [0.01] * 2 + [0.001] * 2
    assert all(math.isclose(rate, target, rel_tol=1e-12) for rate, target in zip(rates, expected, strict=True))


def test_lr_of_very_short_runs_falls_at_most_once_per_epoch() -> None:
    for epochs, falls in ((1, [0]), (2, [0, 1]), (3, [0, 1, 2])):
        rates = [learning_rate(epoch, TrainingConfig(epochs=epochs, lr=1.0)) for epoch in range(epochs)]
        assert rates == pytest.approx([0.1**fall for fall in falls])


def test_lr_without_milestones_is_constant() -> None:
    assert {learning_rate(epoch, TrainingConfig(epochs=8, milestones=())) for epoch in range(8)} == {0.1}


def test_total_budget_includes_the_warmup() -> None:
    config = tiny_config(warmup_epochs=3, training=TrainingConfig(epochs=10, budget="total"))
    assert (config.sparse_epochs, config.total_epochs) == (7, 10)
    config = tiny_config(warmup_epochs=3, training=TrainingConfig(epochs=10, budget="sparse"))
    assert (config.sparse_epochs, config.total_epochs) == (10, 13)


def test_cosine_schedule_falls_to_zero() -> None:
    training = TrainingConfig(epochs=8, lr=0.4, schedule="cosine")
    rates = [learning_rate(epoch, training) for epoch in range(9)]
    assert rates[0] == 0.4
    assert rates[4] == pytest.approx(0.2)
    assert rates[8] == pytest.approx(0.0, abs=1e-12)
    assert rates == sorted(rates, reverse=True)
    assert [rates[k] + rates[8 - k] for k in range(9)] == pytest.approx([0.4] * 9)  # a cosine is symmetric about its middle


@pytest.mark.parametrize("schedule", ["milestones", "cosine"])
def test_lr_warmup_rises_to_the_schedule(schedule: Any) -> None:
    plain = TrainingConfig(epochs=20, schedule=schedule)
    rising = TrainingConfig(epochs=20, schedule=schedule, lr_warmup_epochs=4)
    shares = [learning_rate(epoch, rising) / learning_rate(epoch, plain) for epoch in range(20)]
    assert shares == pytest.approx([0.25, 0.5, 0.75, *[1.0] * 17])
