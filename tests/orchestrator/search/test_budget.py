"""The limits of a search: what may still begin."""

from __future__ import annotations

import pytest

from orchestrator.search.budget import Limits, Meter


def excess(meter: Meter, epochs: int, elapsed_s: float = 0.0, *, new_configuration: bool = False) -> str:
    return meter.excess(epochs, elapsed_s, new_configuration=new_configuration)


def test_without_limits_anything_may_begin() -> None:
    meter = Meter(limits=Limits(), epochs=10**9, gpu_seconds=1e12, configurations=10**6, seconds_per_epoch=[1e6])
    assert excess(meter, 10**9, 1e12, new_configuration=True) == ""


def test_begun_configurations_count_and_block_only_new_ones() -> None:
    meter = Meter(limits=Limits(configurations=2))
    meter.begin("a", 5, new_configuration=True)
    meter.begin("b", 5, new_configuration=False)
    assert excess(meter, 5, new_configuration=True) == ""
    meter.begin("c", 5, new_configuration=True)
    assert excess(meter, 5, new_configuration=True) == "budget.configurations: 2 configurations have begun"
    assert excess(meter, 5) == ""


def test_epochs_of_running_trials_count_as_planned() -> None:
    meter = Meter(limits=Limits(epochs=20))
    meter.begin("a", 8, new_configuration=True)
    assert excess(meter, 12) == ""
    assert excess(meter, 13) == "budget.epochs: 8 of 20 epochs are used, another trial needs 13"
    meter.end("a", 3, 0.0)  # stopped early
    assert excess(meter, 17) == ""
    assert excess(meter, 18) != ""


def test_hours_are_those_that_the_median_speed_will_need() -> None:
    meter = Meter(limits=Limits(hours=1))
    for key, seconds in (("a", 10.0), ("b", 100.0), ("c", 10_000.0)):
        meter.begin(key, 10, new_configuration=False)
        meter.end(key, 10, seconds)
    assert excess(meter, 10, 3500) == ""  # 10 epochs at 10 s
    assert excess(meter, 10, 3501) == "budget.hours: 58.4 min of 60.0 min are used, another trial needs 100 s".replace(
        "100 s", "1.7 min"
    )


def test_only_a_passed_limit_ends_the_search_at_its_start() -> None:
    meter = Meter(limits=Limits(hours=0.01, gpu_hours=0.01), gpus_per_trial=1.0)
    assert excess(meter, 10**6, 36) == ""
    assert excess(meter, 1, 36.1) == "budget.hours: 36 s have passed"


@pytest.mark.parametrize(("share", "allowed"), [(0.0, True), (0.5, True), (1.0, False)])
def test_gpu_hours_weigh_seconds_by_the_share_of_a_gpu(share: float, allowed: bool) -> None:
    meter = Meter(limits=Limits(gpu_hours=1), gpus_per_trial=share)
    meter.begin("a", 10, new_configuration=False)
    meter.end("a", 10, 1800.0)  # 180 s an epoch: half an hour, times the share
    meter.begin("b", 5, new_configuration=False)  # a quarter of an hour more
    assert (excess(meter, 6) == "") is allowed  # 18 minutes: 63 minutes in all with a whole GPU
    assert excess(meter, 5) == ""


def test_speed_ignores_trials_that_trained_nothing() -> None:
    meter = Meter(limits=Limits(hours=1))
    meter.end("existing", 0, 0.0)
    meter.end("existing", 0, 5.0)
    meter.end("without a clock", 5, 0.0)
    assert meter.seconds_per_epoch == []


def test_warmup_of_another_stage_is_timed_by_its_trial() -> None:
    meter = Meter(limits=Limits(hours=1, gpu_hours=1), gpus_per_trial=1.0)
    meter.end("a", 30, 100.0, elsewhere=20)  # 10 epochs in 100 s
    assert meter.gpu_seconds == 300.0
    assert excess(meter, 30, 3300) == ""
    assert excess(meter, 30, 3301).startswith("budget.hours")
    meter.end("failed in its warm-up", 20, 50.0, elsewhere=20)
    assert (meter.gpu_seconds, meter.seconds_per_epoch) == (350.0, [10.0])


def test_trial_that_two_groups_have_counts_once() -> None:
    meter = Meter(limits=Limits(epochs=10))
    meter.begin("a", 8, new_configuration=True)
    meter.begin("a", 0, new_configuration=False)
    assert meter.running == {"a": 8}
