"""Sweeps of weights and of channels: which trials have which granularity, target and sparsity."""

from __future__ import annotations

from orchestrator.spec.grid import expand
from tests.support.sweep_files import BASE, load_text


def trials(lines: str) -> list[tuple[str, str, dict[str, float], float]]:
    """Method, granularity, targets and sparsity of all trials but the dense ones."""
    found = expand(load_text(BASE + lines))
    return [(one.method, one.granularity, one.target.given, one.sparsity) for one in found if not one.is_dense]


def test_methods_that_know_one_granularity_have_that_one() -> None:
    assert trials("method: [magnitude, taylor, gmp]\nsparsity: 0.5\n") == [
        ("magnitude", "weight", {}, 0.5),
        ("taylor", "channel", {}, 0.5),
        ("gmp", "weight", {}, 0.5),
    ]


def test_sparsity_is_of_weights_and_target_of_channels_in_one_sweep() -> None:
    lines = "method: [magnitude, taylor, gmp]\nsparsity: 0.9\ntarget: {multiply_adds: 0.4}\n"
    assert trials(lines + "search: {granularity: [weight, channel]}\n") == [
        ("magnitude", "weight", {}, 0.9),
        ("magnitude", "channel", {"multiply_adds": 0.4}, 0.6),
        ("taylor", "channel", {"multiply_adds": 0.4}, 0.6),
        ("gmp", "weight", {}, 0.9),
    ]


def test_compensation_is_ignored_where_it_changes_nothing() -> None:
    lines = "method: [magnitude, cap, imp, polarization]\ngranularity: channel\nsparsity: 0.5\n"
    found = expand(load_text(BASE + lines + "search: {compensate: [false, true]}\n"))
    assert [(one.method, one.compensate) for one in found if not one.is_dense] == [
        ("magnitude", False),
        ("magnitude", True),
        ("cap", False),
        ("imp", False),
        ("polarization", False),
    ]


def test_dense_baselines_of_both_granularities_are_one() -> None:
    found = expand(load_text(BASE + "sparsity: 0.5\nsearch: {granularity: [weight, channel]}\n"))
    assert sum(one.is_dense for one in found) == 1


def test_shares_of_layers_are_of_scored_weights_alone() -> None:
    lines = "method: [magnitude, random, gmp, taylor]\nsparsity: 0.5\nlayer_sparsity: erk\n"
    found = expand(load_text(BASE + lines))
    assert [(one.method, one.layer_sparsity) for one in found] == [
        ("magnitude", "erk"),
        ("random", "global"),
        ("gmp", "global"),
        ("taylor", "global"),
        ("dense", "global"),
    ]
