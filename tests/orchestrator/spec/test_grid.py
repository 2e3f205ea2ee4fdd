"""Sweeps expand to trials, each with the options that its method uses; trial names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.errors import UserError
from orchestrator.spec.grid import expand
from orchestrator.spec.trial_names import trial_names
from tests.support.sweep_files import BASE, load_text
from trainables.config.methods import ImpConfig
from trainables.config.trial import DatasetConfig, SanityConfig, TrialConfig

HEAD = BASE + "baseline: none\nsparsity: 0.95\n"


def trials(text: str) -> list[TrialConfig]:
    return expand(load_text(HEAD + text))


def test_iterations_are_an_axis_of_methods_with_rounds() -> None:
    methods = "[drive, snip, grasp, synflow, gmp, granet, magnitude, random, imp, srste, dense]"
    configs = trials(f"method: {methods}\nsearch: {{prune_iterations: [1, 10]}}\n")
    counts = {
        name: sum(config.method == name for config in configs) for name in dict.fromkeys(config.method for config in configs)
    }
    assert counts == dict.fromkeys(("drive", "snip", "grasp", "synflow", "gmp", "granet"), 2) | dict.fromkeys(
        ("magnitude", "random", "imp", "srste", "dense"), 1
    )
    assert {config.method: config.rounds for config in configs if config.prune_iterations == 1} == {
        **dict.fromkeys(("drive", "snip", "grasp", "synflow", "gmp", "granet", "magnitude", "random"), 1),
        "imp": 14,
        "srste": 0,
        "dense": 0,
    }


def test_n_of_m_determines_the_sparsity() -> None:
    configs = trials("method: [drive, srste]\nsrste: {pattern: 1:4}\nsearch: {warmup_epochs: [0, 1]}\n")
    assert [(config.method, config.sparsity) for config in configs] == [("drive", 0.95)] * 2 + [("srste", 0.75)] * 2


def test_imp_rewinds_to_the_end_of_the_warmup() -> None:
    configs = trials("method: [drive, imp, gmp]\nwarmup_epochs: 3\nrewind: init\n")
    assert {config.method: (config.rewind, config.rewind_epoch) for config in configs} == {
        "drive": ("init", 0),
        "imp": ("none", 3),
        "gmp": ("none", None),
    }


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("drive", SanityConfig(shuffle=True, reinitialize=True, invert=True)),
        ("imp", SanityConfig(shuffle=True, reinitialize=True, invert=True)),
        ("random", SanityConfig(shuffle=True, reinitialize=True)),
        ("gmp", SanityConfig()),
        ("srste", SanityConfig()),
        ("dense", SanityConfig()),
    ],
)
def test_sanity_checks_apply_to_methods_that_end_before_training(method: str, expected: Any) -> None:
    (config,) = trials(f"method: {method}\nsanity: {{shuffle: true, reinitialize: true, invert: true}}\n")
    assert config.sanity == expected


def test_reinitialized_trials_ignore_unused_axes() -> None:
    configs = trials("warmup_epochs: 2\nsearch: {rewind: [none, init], sanity.reinitialize: [false, true]}\n")
    assert [(config.rewind, config.sanity.reinitialize) for config in configs] == [
        ("none", False),
        ("none", True),
        ("init", False),
    ]


def test_initialization_is_ignored_by_custom_networks() -> None:
    axes = "search: {initialization: [fan_in, fan_out], model: [resnet20, {module: m.f}]}\n"
    configs = expand(load_text(HEAD.replace("model: convnet\n", "") + axes))
    assert [(config.model, config.initialization) for config in configs] == [
        ("resnet20", "fan_in"),
        ("module:m.f", "fan_in"),
        ("resnet20", "fan_out"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("method: gmp\ngmp: {begin: 0.5}\n", "gmp.begin must be < gmp.end, got gmp.begin 0.5, gmp.end 0.5; begin earlier or"),
        ("srste: {pattern: 4:2}\n", "srste.pattern must be N:M with 0 < N < M, such as 2:4, got '4:2'"),
        ("srste: {pattern: half}\n", "srste.pattern must be N:M with 0 < N < M, such as 2:4, got 'half'"),
        ("random: {layers: ERK}\n", "random.layers must be uniform, erk, or the key of a trial, 16 hex digits, got 'ERK'"),
        ("imp: {fraction: 1}\n", "imp.fraction must be"),
        ("sanity: {shuffle: yes please}\n", "sanity.shuffle must be true or false, got 'yes please'"),
        ("sanity: {shuffle: 'False'}\n", "sanity.shuffle must be true or false, got 'False'"),
    ],
)
def test_invalid_options_of_methods_are_reported(text: str, expected: str) -> None:
    with pytest.raises(UserError) as error:
        load_text(HEAD + text)
    assert expected in str(error.value)


def test_boolean_options_can_be_false() -> None:
    (config,) = trials("imp: {exact: false}\nmethod: imp\n")
    assert config.options == ImpConfig(exact=False)


def test_axes_are_in_the_order_of_the_file_with_the_seed_fastest() -> None:
    spec = load_text(BASE + "baseline: none\nsearch: {seed: [1, 0], sparsity: [0.9, 0.5], warmup_epochs: [2, 1]}\n")
    assert [(config.sparsity, config.warmup_epochs, config.seed) for config in expand(spec)] == [
        (sparsity, warmup, seed) for sparsity in (0.9, 0.5) for warmup in (2, 1) for seed in (1, 0)
    ]


def test_dense_baselines_ignore_pruning_axes() -> None:
    spec = load_text(
        BASE + "rewind: init\nwarmup: {lr: 0.5}\ndrive: {magnitude: 0}\nprunable: {exclude: [head]}\n"
        "search: {warmup_epochs: [1, 2], training.lr: [0.1, 0.2], drive.connection: [1, 2], sparsity: [0.9], seed: [0, 1]}\n"
    )
    trials = expand(spec)
    plain = TrialConfig(dataset=DatasetConfig(name="digits"), model="convnet", method="dense")
    assert len(trials) == 2 * 2 * 2 * 2 + 4
    assert trials[16:] == [
        replace(plain, seed=seed, training=replace(plain.training, lr=lr)) for lr in (0.1, 0.2) for seed in (0, 1)
    ]


def test_dense_method_and_baseline_are_one_trial() -> None:
    both = load_text(BASE + "method: [drive, dense]\nsearch: {sparsity: [0.5, 0.9], seed: [0, 1]}\n")
    assert [config.method for config in expand(both)] == ["drive"] * 4 + ["dense"] * 2
    assert trial_names(expand(both))[4:] == ["dense-r0", "dense-r1"]
    alone = load_text(BASE + "method: dense\nbaseline: none\nsearch: {sparsity: [0.5, 0.9]}\n")
    assert trial_names(expand(alone)) == ["dense-r0"]
    without = load_text(BASE + "baseline: none\nsearch: {seed: [0, 1]}\n")
    assert [config.method for config in expand(without)] == ["drive", "drive"]


@pytest.mark.parametrize(
    ("addition", "names"),
    [
        ("warmup_epochs: 4\nprune_iterations: 50\nsparsity: 0.95\n", ["w04-i050-s0.95-r0", "dense-r0"]),
        (
            "seed: 12\nsearch: {sparsity: [0.90, 0, 1.0e-5]}\n",
            [*(f"w00-i001-s{s}-r12" for s in ("0.9", "0.0", "1e-05")), "dense-r12"],
        ),
        ("search: {warmup_epochs: [5, 100]}\n", ["w005-i001-s0.0-r0", "w100-i001-s0.0-r0", "dense-r0"]),
        ("search: {prune_iterations: [1, 2000]}\n", ["w00-i0001-s0.0-r0", "w00-i2000-s0.0-r0", "dense-r0"]),
        (
            "search: {training.lr: [0.1, 1e-3]}\n",
            ["w00-i001-s0.0-r0-lr0.1", "w00-i001-s0.0-r0-lr0.001", "dense-r0-lr0.1", "dense-r0-lr0.001"],
        ),
        (
            "warmup_epochs: 3\nbaseline: none\nsearch: {warmup.lr: [0.1, 0.2], training.lr: [1], rewind: [init, epoch 2]}\n",
            [f"w03-i001-s0.0-r0-rewind{rewind}-lr{lr}" for lr in (0.1, 0.2) for rewind in ("init", "epoch2")],
        ),
        (
            "baseline: none\nsearch: {warmup.lr: [0.1, null], training.lr: [1, 2]}\n",
            [f"w00-i001-s0.0-r0-warmup.lr{warmup}-training.lr{lr}" for warmup in ("0.1", "none") for lr in ("1.0", "2.0")],
        ),
        (
            "search: {training.milestones: [[4, 6], []]}\nbaseline: none\n",
            ["w00-i001-s0.0-r0-milestones[4,6]", "w00-i001-s0.0-r0-milestones[]"],
        ),
    ],
)
def test_trial_names_have_all_digits_of_what_varies(addition: str, names: list[str]) -> None:
    assert trial_names(expand(load_text(BASE + addition))) == names
