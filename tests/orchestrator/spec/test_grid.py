"""What a sweep over several methods expands to: each trial with what its method uses and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import UserError
from orchestrator.spec.grid import expand
from orchestrator.spec.loader import load_spec
from orchestrator.spec.schema import SweepSpec
from trainables.config.methods import ImpConfig
from trainables.config.trial import SanityConfig, TrialConfig

BASE = "name: x\ndataset: {name: digits}\nmodel: convnet\nbaseline: none\nsparsity: 0.95\n"


def loaded(text: str, folder: Path) -> SweepSpec:
    file = folder / "s.yaml"
    file.write_text(BASE + text)
    return load_spec(str(file))


def trials(text: str, folder: Path) -> list[TrialConfig]:
    return expand(loaded(text, folder))


def test_iterations_multiply_only_methods_that_have_them(tmp_path: Path) -> None:
    methods = "[drive, snip, grasp, synflow, gmp, granet, magnitude, random, imp, srste, dense]"
    made = trials(f"method: {methods}\nsearch: {{prune_iterations: [1, 10]}}\n", tmp_path)
    counts = {name: sum(config.method == name for config in made) for name in dict.fromkeys(config.method for config in made)}
    assert counts == dict.fromkeys(("drive", "snip", "grasp", "synflow", "gmp", "granet"), 2) | dict.fromkeys(
        ("magnitude", "random", "imp", "srste", "dense"), 1
    )
    assert {config.method: config.rounds for config in made if config.prune_iterations == 1} == {
        **dict.fromkeys(("drive", "snip", "grasp", "synflow", "gmp", "granet", "magnitude", "random"), 1),
        "imp": 14,
        "srste": 0,
        "dense": 0,
    }


def test_n_of_m_has_a_sparsity_of_its_own(tmp_path: Path) -> None:
    made = trials("method: [drive, srste]\nsrste: {pattern: 1:4}\nsearch: {warmup_epochs: [0, 1]}\n", tmp_path)
    assert [(config.method, config.sparsity) for config in made] == [("drive", 0.95)] * 2 + [("srste", 0.75)] * 2


def test_imp_rewinds_to_the_warmups_end_whatever_others_do(tmp_path: Path) -> None:
    made = trials("method: [drive, imp, gmp]\nwarmup_epochs: 3\nrewind: init\n", tmp_path)
    assert {config.method: (config.rewind, config.rewind_epoch) for config in made} == {
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
def test_sanity_checks_belong_to_methods_that_hand_a_mask_over(method: str, expected: Any, tmp_path: Path) -> None:
    (config,) = trials(f"method: {method}\nsanity: {{shuffle: true, reinitialize: true, invert: true}}\n", tmp_path)
    assert config.sanity == expected


def test_what_a_reinitialized_trial_does_not_use_is_no_axis(tmp_path: Path) -> None:
    made = trials("warmup_epochs: 2\nsearch: {rewind: [none, init], sanity.reinitialize: [false, true]}\n", tmp_path)
    assert [(config.rewind, config.sanity.reinitialize) for config in made] == [
        ("none", False),
        ("none", True),
        ("init", False),
    ]


def test_initialization_is_no_axis_of_networks_that_bring_their_weights(tmp_path: Path) -> None:
    axes = "search: {initialization: [fan_in, fan_out], model: [resnet20, {module: m.f}]}\n"
    file = tmp_path / "s.yaml"
    file.write_text(BASE.replace("model: convnet\n", "") + axes)
    assert [(config.model, config.initialization) for config in expand(load_spec(str(file)))] == [
        ("resnet20", "fan_in"),
        ("module:m.f", "fan_in"),
        ("resnet20", "fan_out"),
    ]


@pytest.mark.parametrize(
    ("text", "told"),
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
def test_wrong_options_of_methods_are_told(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        loaded(text, tmp_path)
    assert told in str(error.value)


def test_false_is_false(tmp_path: Path) -> None:
    (config,) = trials("imp: {exact: false}\nmethod: imp\n", tmp_path)
    assert config.options == ImpConfig(exact=False)
