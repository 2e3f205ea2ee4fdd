"""The measured speed of a trial, by a clock that only its batches, images and rounds move."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.dataset_folders import imagenet, imagenet_source
from tests.support.trials import DIGITS, RUNTIME, tiny_config, tiny_training
from trainables.config.trial import DatasetConfig, TrialConfig
from trainables.data.splits import load_data
from trainables.data.staging import StagedDataset
from trainables.pruning.rounds import prune_round
from trainables.training.loop import evaluate_raw, train_epoch
from trainables.worker import speed
from trainables.worker.speed import measure_speed

BATCH_S, IMAGE_S, ROUND_S = 0.5, 0.01, 3.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """The numbers of batches, and of rounds, of each call."""
    now, calls = [0.0], {"batches": list[int](), "rounds": list[int]()}

    def timed_train(*arguments: Any, **options: Any) -> Any:
        calls["batches"].append(len(arguments[3].train) // options["training"].batch_size)
        now[0] += BATCH_S * calls["batches"][-1]
        return train_epoch(*arguments, **options)

    def timed_evaluate(*arguments: Any) -> Any:
        now[0] += IMAGE_S * len(arguments[1])
        return evaluate_raw(*arguments)

    def timed_prune(*arguments: Any, **options: Any) -> Any:
        calls["rounds"].append(arguments[5])
        now[0] += ROUND_S
        return prune_round(*arguments, **options)

    monkeypatch.setattr(speed, "train_epoch", timed_train)
    monkeypatch.setattr(speed, "evaluate_raw", timed_evaluate)
    monkeypatch.setattr(speed, "prune_round", timed_prune)
    monkeypatch.setattr("trainables.worker.speed.time.perf_counter", lambda: now[0])
    return calls


def measured(config: TrialConfig, seconds: float) -> speed.Speed:
    return measure_speed(config, StagedDataset(source=DIGITS), RUNTIME, seconds)


@pytest.mark.parametrize("seconds", [0.1, 2.0, 20.0])
def test_an_epoch_is_its_batches_and_the_validation(clock: dict[str, list[int]], seconds: float) -> None:
    config = tiny_config(training=tiny_training(batch_size=8))
    data = load_data(config.dataset, DIGITS, "cpu", RUNTIME.threads)
    steps = len(data.train) // 8
    expected = BATCH_S * steps + IMAGE_S * len(data.validation)
    assert measured(config, seconds).epoch_seconds == pytest.approx(expected)
    assert max(clock["batches"]) == min(steps, max(2, int(seconds / BATCH_S)))


def test_batches_that_take_long_are_not_repeated(clock: dict[str, list[int]]) -> None:
    config = tiny_config(training=tiny_training(batch_size=8), prune_iterations=3)
    data = load_data(config.dataset, DIGITS, "cpu", RUNTIME.threads)
    found = measured(config, BATCH_S / speed.PATIENCE / 2)
    assert found.epoch_seconds == pytest.approx(BATCH_S * (len(data.train) // 8) + IMAGE_S * len(data.validation))
    assert found.round_seconds == ROUND_S
    assert (clock["batches"], clock["rounds"]) == ([1, 1], [1])


def test_rounds_are_played_in_their_order_and_begin_again(clock: dict[str, list[int]]) -> None:
    assert measured(tiny_config(prune_iterations=3), 5 * ROUND_S).round_seconds == pytest.approx(ROUND_S)
    assert clock["rounds"] == [1, 2, 3, 1, 2, 3]  # the first one is not counted


@pytest.mark.parametrize("method", ["dense", "imp", "gmp", "srste"])
def test_methods_without_rounds_of_their_own_have_none(clock: dict[str, list[int]], method: str) -> None:
    config = tiny_config(method=method, sparsity=0.0 if method == "dense" else 0.5)
    found = measured(config, 0.1)
    assert found.round_seconds == 0
    assert found.epoch_seconds > 0
    assert clock["rounds"] == []


def test_loaders_of_a_streamed_epoch_start_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start_s, now = 7.0, [0.0]

    def timed_train(*arguments: Any, **options: Any) -> None:
        now[0] += start_s + BATCH_S * (len(arguments[3].train) // options["training"].batch_size)

    monkeypatch.setattr(speed, "train_epoch", timed_train)
    monkeypatch.setattr("trainables.worker.speed.time.perf_counter", lambda: now[0])
    dataset = DatasetConfig(name="imagenet", image_size=32, validation=0.0)
    config = tiny_config(dataset=dataset, method="dense", training=tiny_training(batch_size=2))
    source = StagedDataset(source=imagenet_source(imagenet(tmp_path)))
    assert measure_speed(config, source, RUNTIME, 0.1).epoch_seconds == pytest.approx(start_s + BATCH_S * 12)
