"""Groups: what is compared with what."""

from __future__ import annotations

import itertools
from typing import Any

from orchestrator.search.groups import groups_of, seeds_of
from tests.support.sweep_files import BASE, load_text
from tests.support.synthetic_grid import spec_with


def names(**keys: Any) -> list[str]:
    return [group.name for group in groups_of(spec_with(keys))]


def test_each_method_and_sparsity_is_a_group() -> None:
    groups = groups_of(spec_with({"method": ["drive", "snip"], "search": {"sparsity": [0.9, 0.98]}}))
    assert [group.name for group in groups] == ["drive-s0.9", "drive-s0.98", "snip-s0.9", "snip-s0.98"]
    trials = [group.trial({"warmup_epochs": 2, "prune_iterations": 10}, 3) for group in groups]
    assert [(one.method, one.sparsity) for one in trials] == list(itertools.product(("drive", "snip"), (0.9, 0.98)))
    assert {(one.warmup_epochs, one.seed) for one in trials} == {(2, 3)}
    assert all([axis.key for axis in group.space.axes] == ["warmup_epochs", "prune_iterations"] for group in groups)


def test_dense_training_is_no_group() -> None:
    assert names(method=["dense", "drive"]) == ["drive-s0.9"]


def test_method_that_fixes_the_sparsity_has_one_group() -> None:
    groups = groups_of(spec_with({"method": ["srste", "drive"], "search": {"sparsity": [0.9, 0.98]}}))
    assert [group.name for group in groups] == ["srste-s0.5", "drive-s0.9", "drive-s0.98"]


def test_options_of_methods_are_axes_of_groups_or_configurations() -> None:
    search = {"training.lr": [0.1, 0.01], "warmup.lr": {"min": 0.01, "max": 0.1}}
    spec = spec_with({"search": search, "strategy": {"name": "tpe", "configurations": 3}})
    assert [group.name for group in groups_of(spec)] == ["s0.9-lr0.1", "s0.9-lr0.01"]
    assert [axis.key for axis in groups_of(spec)[0].space.axes] == ["warmup_epochs", "prune_iterations", "warmup.lr"]
    axes = {"name": "tpe", "configurations": 3, "axes": ["training.lr", "warmup_epochs"]}
    groups = groups_of(spec_with({"search": {"training.lr": [0.1, 0.01]}, "strategy": axes}))
    assert [group.name for group in groups] == [f"s0.9-prune_iterations{number}" for number in (1, 10, 100)]
    assert {tuple(axis.key for axis in group.space.axes) for group in groups} == {("warmup_epochs", "training.lr")}


def test_axis_that_a_method_ignores_makes_no_second_group() -> None:
    spec = spec_with({"method": ["drive", "imp"], "search": {"imp.fraction": [0.2, 0.5]}})
    by_method = [group.name.split("-")[0] for group in groups_of(spec)]
    assert by_method == ["drive", "imp", "imp"]


def test_axis_of_some_configurations_makes_a_second_group() -> None:
    """A reinitialised trial ignores the rewind, another does not, whichever comes first."""
    for values in ([False, True], [True, False]):
        search = {"warmup_epochs": [2], "rewind": ["none", "init"], "sanity.reinitialize": values}
        axes = {"name": "grid", "axes": ["warmup_epochs", "prune_iterations", "sanity.reinitialize"]}
        assert len(names(search=search, strategy=axes)) == 2


def test_names_are_unique() -> None:
    for keys in (
        {"method": ["drive", "snip"], "search": {"sparsity": [0.9, 0.98], "training.lr": [0.1, 0.01]}},
        {"search": {"training.lr": [0.1, 0.01], "warmup.lr": [0.1, 0.01]}},
    ):
        labels = names(**keys)
        assert len(labels) == len(set(labels)) > 2


def test_settings_of_one_custom_method_are_groups_with_numbers() -> None:
    methods = [{"module": "scores.mine", "options": {"power": power}} for power in (1, 2)]
    assert names(method=methods) == ["scores.mine-s0.9-1", "scores.mine-s0.9-2"]


def test_seeds_come_from_seeds_then_axis_then_file() -> None:
    assert seeds_of(spec_with({"seed": 5, "seeds": {"first": 2, "most": 4}})) == ((5, 6), (7, 8))
    assert seeds_of(spec_with({"search": {"seed": [3, 1]}})) == ((3, 1), ())
    assert seeds_of(spec_with({"seed": 7, "search": {"seed": None}})) == ((7,), ())


def test_groups_are_named_by_what_their_trials_have() -> None:
    spec = load_text(
        BASE
        + "method: [magnitude, taylor]\nsparsity: 0.8\ntarget: {multiply_adds: 0.5}\n"
        + "search: {granularity: [weight, channel], warmup_epochs: [0, 1]}\n"
    )
    groups = {group.name: group.fixed for group in groups_of(spec)}
    assert groups == {
        "magnitude-s0.8-weight": {"granularity": "weight"},
        "magnitude-s0.5-channel": {"granularity": "channel"},
        "taylor-s0.5-channel": {"granularity": "channel"},
    }
