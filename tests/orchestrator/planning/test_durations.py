"""How long stages take, learned from others: the parts of their time, and ranges that hold as often as they say."""

from __future__ import annotations

import random

import pytest

from orchestrator.planning.durations import WARMUP, Pace, Timed, Work, timed_trial, trial_work
from tests.support.trials import tiny_config, tiny_training
from trainables.config.trial import TrialConfig

NETWORK = "net"


def timed(method: str, epochs: int, rounds: int, *, noise: float = 1.0, fixed: float = 2.0) -> Timed:
    """A stage with 3 s an epoch and 0.5 s a round."""
    training, pruning = 3.0 * epochs * noise, 0.5 * rounds * noise
    work = Work(network=NETWORK, method=method, epochs=epochs, rounds=rounds)
    return Timed(work=work, seconds=fixed * noise + training + pruning, epoch_seconds=training, round_seconds=pruning)


def work(method: str, epochs: int, rounds: int = 0) -> Work:
    return Work(network=NETWORK, method=method, epochs=epochs, rounds=rounds)


def test_parts_of_the_time_are_found_again() -> None:
    pace = Pace([timed("drive", 4, 10), timed("drive", 8, 2), timed(WARMUP, 5, 0, fixed=0.0)])
    assert pace.is_known
    assert pace.expected(work("drive", 10, 100)) == pytest.approx(2 + 30 + 50)
    assert pace.expected(work("magnitude", 10, 1)) == pytest.approx(2 + 30)
    assert pace.expected(work("synflow", 10, 100)) is None  # its rounds may take any time
    assert pace.expected(work(WARMUP, 10)) == pytest.approx(30)


def test_rounds_are_not_known_before_one_was_seen() -> None:
    pace = Pace([timed(WARMUP, 5, 0, fixed=0.0)] * 3)
    assert pace.expected(work("drive", 4, 10)) is None
    assert pace.expected(work("dense", 4)) == pytest.approx(12)


def test_two_stages_are_too_few() -> None:
    assert not Pace([timed("drive", 4, 10)] * 2).is_known
    assert not Pace([]).is_known


@pytest.mark.parametrize(("method", "trains_warmup", "epochs", "rounds"), [("drive", True, 8, 2), ("drive", False, 6, 2)])
def test_a_trial_trains_its_warmup_if_it_shares_none(method: str, trains_warmup: bool, epochs: int, rounds: int) -> None:
    config = tiny_config(method=method, training=tiny_training(epochs=6))
    found = trial_work(config, trains_warmup=trains_warmup)
    assert (found.epochs, found.rounds) == (epochs, rounds)


def test_levels_are_epochs_and_no_rounds() -> None:
    config = tiny_config(method="imp", training=tiny_training(epochs=6))
    found = timed_trial(config, costs(warmup=1.0, prune=10.0, train=4.0), trains_warmup=False)
    assert found is not None
    assert (found.work.epochs, found.work.rounds) == (config.level_epochs + 6, 0)
    assert (found.epoch_seconds, found.round_seconds, found.seconds) == (14.0, 0.0, 14.0)


def test_time_of_a_shared_warmup_is_not_the_trials() -> None:
    config: TrialConfig = tiny_config()
    shared = timed_trial(config, costs(warmup=5.0, prune=2.0, train=4.0), trains_warmup=False, seconds=9.0)
    alone = timed_trial(config, costs(warmup=5.0, prune=2.0, train=4.0), trains_warmup=True)
    assert shared is not None
    assert alone is not None
    assert (shared.epoch_seconds, shared.round_seconds, shared.seconds) == (4.0, 2.0, 9.0)
    assert (alone.epoch_seconds, alone.round_seconds, alone.seconds) == (9.0, 2.0, 11.0)
    assert timed_trial(config, {"val/accuracy": 0.5}, trains_warmup=True) is None


def test_updates_during_training_are_part_of_its_epochs() -> None:
    assert trial_work(tiny_config(method="gmp"), trains_warmup=False).rounds == 0


def costs(*, warmup: float, prune: float, train: float) -> dict[str, float]:
    return {
        "cost/warmup_seconds": warmup,
        "cost/search_seconds": warmup + prune,
        "cost/total_seconds": warmup + prune + train,
    }


@pytest.mark.parametrize("known", [3, 8])
def test_nine_of_ten_totals_lie_between_the_5th_and_the_95th_percentile(known: int) -> None:
    draw, held, rest = random.Random(1), 0, 12
    for _ in range(300):
        spread = draw.uniform(0.05, 0.4)
        stages = [timed("drive", 6, 4, noise=draw.lognormvariate(0, spread)) for _ in range(known)]
        truth = sum(timed("drive", 6, 4, noise=draw.lognormvariate(0, spread)).seconds for _ in range(rest))
        pace = Pace(stages)
        expected = pace.expected(work("drive", 6, 4)) or 0.0
        totals = sorted(expected * sum(ratio("drive") for _ in range(rest)) for ratio in courses(pace, draw))
        held += totals[2] <= truth <= totals[-3]
    assert held / 300 == pytest.approx(0.9, abs=0.05)


def test_a_method_with_too_few_times_has_the_spread_of_all() -> None:
    same = [timed("drive", 6, 4, noise=noise) for noise in (0.98, 0.99, 1.0, 1.01, 1.02)]
    pace, draw = Pace([*same, timed("imp", 6, 4, noise=2.0)]), random.Random(0)
    known = sorted(ratio("drive") for ratio in courses(pace, draw))
    other = sorted(ratio("synflow") for ratio in courses(pace, draw))
    assert known[-3] / known[2] < 1.2
    assert other[-3] / other[2] > 1.5


def courses(pace: Pace, draw: random.Random) -> list:  # type: ignore[type-arg]
    return [pace.draw_ratios(draw) for _ in range(60)]
