"""Targets of latency in a sweep file: of channels, and of single weights with layer_sparsity spdy."""

from __future__ import annotations

import pytest

from orchestrator.spec.grid import expand
from tests.support.sweep_files import BASE, error_lines, load_text

SPDY = "layer_sparsity: spdy\ntarget: {latency: 0.5}\n"


def trials(lines: str) -> list[tuple[str, str, str, dict[str, float], float]]:
    """Method, granularity, layer_sparsity, targets and sparsity of all trials but the dense ones."""
    found = [one for one in expand(load_text(BASE + lines)) if not one.is_dense]
    return [(one.method, one.granularity, one.layer_sparsity, one.target.given, one.sparsity) for one in found]


def test_target_takes_the_place_of_sparsity() -> None:
    assert trials(SPDY + "method: [magnitude, taylor]\n") == [
        ("magnitude", "weight", "spdy", {"latency": 0.5}, 0.5),
        ("taylor", "channel", "global", {"latency": 0.5}, 0.5),
    ]
    assert trials("granularity: channel\ntarget: {latency: 0.55}\nmethod: snip\n") == [
        ("snip", "channel", "global", {"latency": 0.55}, 0.45)
    ]


def test_methods_without_it_have_the_sparsity_beside_it() -> None:
    assert trials(SPDY + "sparsity: 0.9\nmethod: [snip, random, gmp]\n") == [
        ("snip", "weight", "spdy", {"latency": 0.5}, 0.5),
        ("random", "weight", "global", {}, 0.9),
        ("gmp", "weight", "global", {}, 0.9),
    ]


def test_options_of_the_search_that_have_no_effect_make_no_other_trial() -> None:
    axes = "search: {spdy.search: [true, false], spdy.starts: [10, 20]}\n"
    found = [one.spdy for one in expand(load_text(BASE + SPDY + "method: snip\n" + axes)) if not one.is_dense]
    assert [(one.search, one.starts) for one in found] == [(True, 10), (True, 20), (False, 100)]
    plain = expand(load_text(BASE + "sparsity: 0.9\nmethod: snip\n" + axes))
    assert len([one for one in plain if not one.is_dense]) == 1


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("layer_sparsity: spdy\nsparsity: 0.5\n", "layer_sparsity must be given with target.latency"),
        ("target: {latency: 0.5}\n", "target.latency must be given only with granularity channel, or layer_sparsity spdy"),
        (SPDY + "sparsity: 0.5\n", "sparsity must not be given with target.latency, which decides it"),
        (SPDY + "method: [snip, gmp]\n", "target.latency must be that of all trials, or have sparsity beside it: gmp cannot"),
        (SPDY + "method: imp\n", "spdy.search must be false for imp, which scores weights after training"),
        (
            SPDY + "method: imp\nspdy: {search: false}\nimp: {exact: false}\n",
            "imp.exact must be true with layer_sparsity spdy",
        ),
        (SPDY + "warmup_epochs: auto\n", "warmup.rule must be overlap for spdy"),
        ("layer_sparsity: spdy\ntarget: {latency: 1.5}\n", "target.latency must be in (0, 1), got 1.5"),
        (
            "granularity: channel\ntarget: {latency: 0.5}\nmethod: hap\nhap: {implant: 0.1}\n",
            "hap.implant must be 0 with target.latency: timing tables have no times of implants",
        ),
        (SPDY + "search: {timings: [a, b]}\n", "only those can be searched: write timings outside of search"),
    ],
)
def test_what_does_not_fit_is_refused(lines: str, message: str) -> None:
    assert message in "\n".join(error_lines(BASE + lines))
