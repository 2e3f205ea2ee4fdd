"""Rungs: where trials are compared."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.search.early_stopping import asha_rungs, median_rungs
from orchestrator.search.factory import rungs_of
from orchestrator.search.groups import groups_of
from orchestrator.spec.grid import dense_baseline
from tests.support.synthetic_grid import spec_with


@given(st.integers(1, 20), st.integers(2, 5), st.integers(1, 500))
def test_asha_rungs_are_the_powers_below_the_end(grace: int, reduction: int, epochs: int) -> None:
    powers = {grace * reduction**power for power in range(20)}
    assert set(asha_rungs(grace, reduction, epochs)) == {epoch for epoch in range(1, epochs) if epoch in powers}


@given(st.integers(1, 20), st.integers(1, 100))
def test_median_rungs_are_all_epochs_but_the_last(grace: int, epochs: int) -> None:
    assert list(median_rungs(grace, epochs)) == [epoch for epoch in range(1, epochs) if epoch >= grace]


def test_rungs_are_of_pruned_trials_under_early_stopping() -> None:
    spec = spec_with({"early_stopping": {"name": "median", "grace_epochs": 2}, "seeds": {"first": 1, "most": 1}})
    group = groups_of(spec)[0]
    trial = group.trial(group.space.first(), 0)
    assert rungs_of(spec, trial) == (2, 3)
    assert rungs_of(spec, dense_baseline(trial)) == ()
    assert rungs_of(spec_with(), trial) == ()
    asha = spec_with({"early_stopping": {"name": "asha", "reduction": 2}, "seeds": {"first": 1, "most": 1}})
    assert rungs_of(asha, trial) == (1, 2)
