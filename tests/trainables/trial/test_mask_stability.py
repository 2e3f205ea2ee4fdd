"""When a mask is stable, against a count by hand of each rule."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import pytest
import torch

from tests.support.trials import tiny_config
from trainables.config.trial import StabilityMeasure, TrialConfig, WarmupConfig
from trainables.pruning.masks import Masks
from trainables.trial.mask_stability import OVERLAP, MaskHistory, Reading, is_stable, stable_threshold, stop_reason

SIZE = 1000


def auto(rule: StabilityMeasure = "overlap", window: int = 2, threshold: float | None = 0.8) -> TrialConfig:
    return tiny_config(warmup_epochs=9, warmup=WarmupConfig(auto=True, rule=rule, window=window, threshold=threshold))


def with_counts(*counts: int) -> Masks:
    return {str(index): torch.arange(SIZE) < count for index, count in enumerate(counts)}


def readings(*values: float | None, rule: StabilityMeasure = "overlap") -> list[Reading]:
    return [
        Reading(epoch=epoch, overlap=value if rule == "overlap" else None, epi=value if rule == "epi" else None)
        for epoch, value in enumerate(values)
    ]


def first_stable(read: Sequence[Reading], config: TrialConfig) -> int | None:
    return next((one.epoch for one in read if is_stable(read[: one.epoch + 1], config)), None)


def test_history_reads_what_a_naive_version_reads() -> None:
    counts = [(10, 90), (30, 70), (40, 60), (42, 58), (43, 57), (43, 57)]
    history = MaskHistory(window=3)
    for one in counts:
        history.add(with_counts(*one))

    def similarity(one: tuple[int, ...], other: tuple[int, ...]) -> float:
        return 1 - statistics.fmean(abs(a - b) / (a + b) for a, b in zip(one, other, strict=True))

    def kappa(one: tuple[int, ...], other: tuple[int, ...]) -> float:
        chance = sum(a * b / SIZE for a, b in zip(one, other, strict=True))
        both, kept = sum(map(min, one, other)), (sum(one) + sum(other)) / 2
        return (both - chance) / (kept - chance)

    for epoch, reading in enumerate(history.readings):
        before = counts[max(0, epoch - 3) : epoch]
        overlap = min((kappa(counts[epoch], one) for one in before), default=None)
        epi = statistics.fmean(similarity(counts[epoch], one) for one in before) if epoch >= 3 else None
        assert reading.epoch == epoch
        assert reading.overlap == pytest.approx(overlap)
        assert reading.epi == pytest.approx(epi)
    assert len(history.masks) == 3


def test_overlap_rule_ends_at_the_first_stable_epoch() -> None:
    assert first_stable(readings(None, 0.5, 0.7, 0.79, 0.8, 0.9), auto()) == 4
    assert first_stable(readings(None, 0.5, 0.7), auto()) is None


@pytest.mark.parametrize("rule", ["overlap", "epi"])
def test_no_rule_ends_before_its_window_is_full(rule: StabilityMeasure) -> None:
    assert first_stable(readings(*[1.0] * 6, rule=rule), auto(rule=rule, window=4)) == 4


def test_indicator_ends_at_no_value_below_an_earlier_one() -> None:
    values = [None, None, 0.7, 0.95, 0.9, 0.85, 0.95, 0.96]
    assert first_stable(readings(*values, rule="epi"), auto(rule="epi")) == 3
    after_peak = readings(None, None, 0.95, *[0.9] * 5, 0.91, rule="epi")
    peak = Reading(epoch=2, overlap=None, epi=0.95)
    assert after_peak[2] == peak
    assert not is_stable(after_peak[:8], auto(rule="epi"))  # 5 epochs back it was higher
    assert is_stable(after_peak, auto(rule="epi"))  # 6 epochs back no longer counts


def test_thresholds_are_those_of_the_rule_and_the_method() -> None:
    assert stable_threshold(auto(threshold=None)) == OVERLAP
    epi = auto(rule="epi", threshold=None)
    assert stable_threshold(epi) == 0.944
    for method in ("magnitude", "imp", "gmp"):
        assert stable_threshold(tiny_config(method=method, warmup=epi.warmup)) == 0.983
    assert stable_threshold(auto(threshold=0.5)) == 0.5


def test_reason_says_what_was_measured() -> None:
    stable = "the mask is stable: overlap of the kept weights with the 2 epochs before 0.812, threshold 0.8"
    assert stop_reason(readings(None, 0.5, 0.8123), auto()) == stable
    at_most = "the mask is not stable after the most epochs allowed, 9: early pruning indicator 0.700, threshold 0.8"
    assert stop_reason(readings(None, 0.5, 0.7, rule="epi"), auto(rule="epi")) == at_most
