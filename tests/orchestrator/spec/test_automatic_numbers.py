"""The word auto for the warm-up and the iterations: what a sweep file may say, and the trials that follow."""

from __future__ import annotations

import json
from dataclasses import replace

import jsonschema
import pytest

from orchestrator.spec.grid import expand
from orchestrator.spec.json_schema import json_schema
from orchestrator.spec.loader import resolved, spec_from_resolved
from orchestrator.spec.trial_names import trial_names
from tests.support.sweep_files import BASE, error_lines, load_text
from trainables.config.keys import canonical
from trainables.config.trial import IterationsConfig, WarmupConfig

AUTO = "warmup_epochs: auto\nprune_iterations: auto\nwarmup: {most: 30, window: 3}\nsearch: {sparsity: [0.9, 0.95]}\n"


def test_trials_have_the_most_and_the_rule() -> None:
    first, *_, dense = expand(load_text(BASE + AUTO))
    assert (first.warmup_epochs, first.warmup) == (30, WarmupConfig(auto=True, window=3))
    assert (first.prune_iterations, first.iterations) == (64, IterationsConfig(auto=True))
    assert (dense.warmup_epochs, dense.warmup, dense.iterations) == (0, WarmupConfig(), IterationsConfig())


def test_methods_without_iterations_choose_none() -> None:
    config, _ = expand(load_text(BASE + "method: magnitude\nprune_iterations: auto\nsparsity: 0.5\n"))
    assert (config.prune_iterations, config.iterations) == (1, IterationsConfig())


def test_numbers_are_hashed_as_before() -> None:
    numbers, _ = expand(load_text(BASE + "warmup_epochs: 3\nprune_iterations: 5\nsparsity: 0.5\n"))
    assert canonical(numbers).keys().isdisjoint({"warmup", "iterations"})


def test_names_say_auto() -> None:
    names = trial_names(expand(load_text(BASE + AUTO)))
    assert names == ["wauto-iauto-s0.9-r0", "wauto-iauto-s0.95-r0", "dense-r0"]
    rules = "warmup_epochs: auto\nsparsity: 0.5\nsearch: {warmup.rule: [overlap, epi]}\n"
    assert trial_names(expand(load_text(BASE + rules)))[0] == "wauto-i001-s0.5-r0-ruleoverlap"


def test_resolved_form_and_schema_keep_the_word() -> None:
    spec = load_text(BASE + AUTO)
    values = json.loads(json.dumps(resolved(spec)))
    assert (values["warmup_epochs"], values["prune_iterations"]) == ("auto", "auto")
    assert spec_from_resolved(values) == spec
    numbers = resolved(load_text(BASE + "warmup_epochs: 3\nwarmup: {lr: 0.1}\nsparsity: 0.5\n"))
    assert (numbers["warmup"], numbers["iterations"]) == ({"lr": 0.1}, {})  # so that a default may change later
    jsonschema.validate(values, json_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values | {"search": {"warmup_epochs": [1, "auto"]}}, json_schema())


def test_option_replaces_the_searched_numbers() -> None:
    spec = load_text(BASE + "sparsity: 0.5\nsearch: {warmup_epochs: [1, 2]}\n", "warmup_epochs=auto")
    assert [config.warmup.auto for config in expand(spec)] == [True, False]
    back = load_text(BASE + "sparsity: 0.5\nwarmup_epochs: auto\n", "search.warmup_epochs=[1, 2]")
    assert {(config.warmup_epochs, config.warmup.auto) for config in expand(back)} == {(1, False), (2, False), (0, False)}


ERRORS = {
    "auto beside a number": (
        "search:\n  warmup_epochs: [2, auto]\n",
        "s.yaml:5: search.warmup_epochs[1] must be a whole number >= 0, got 'auto'; auto has no other values beside it: write "
        "warmup_epochs: auto outside of search",
    ),
    "auto as a list": (
        "search: {prune_iterations: auto}\n",
        "s.yaml:4: search.prune_iterations must be a list of values, got 'auto'; "
        "write prune_iterations: auto outside of search",
    ),
    "auto and a list": (
        "warmup_epochs: auto\nsearch: {warmup_epochs: [1, 2]}\n",
        "s.yaml:5: search.warmup_epochs must not be both fixed and searched, got warmup_epochs 'auto' at s.yaml:4; "
        "remove one of the two",
    ),
    "auto as the bound of a range": (
        "strategy: {name: tpe, configurations: 4}\nsearch: {warmup_epochs: {min: 1, max: auto}}\n",
        "s.yaml:5: search.warmup_epochs.max must be a whole number >= 0, got 'auto'; auto has no other values beside it: write "
        "warmup_epochs: auto outside of search",
    ),
    "another word": (
        "warmup_epochs: Auto\n",
        "s.yaml:4: warmup_epochs must be a whole number >= 0, or auto, got 'Auto'; without the line it is 0",
    ),
    "the rule in its place": (
        "warmup_epochs: {most: 30}\n",
        "s.yaml:4: warmup_epochs must be a whole number >= 0, or auto, got {'most': 30}; "
        "write warmup_epochs: auto and warmup: {most: 30}",
    ),
    "a rule without effect": (
        "warmup_epochs: 3\nwarmup: {most: 30}\n",
        "s.yaml:5: warmup.most must be given only with warmup_epochs auto, got warmup.most 30, warmup_epochs 3; "
        "write warmup_epochs: auto, or remove it",
    ),
    "a searched rule without effect": (
        "search: {iterations.threshold: [0.5, 0.7]}\n",
        "s.yaml:4: search.iterations.threshold[0] must be given only with prune_iterations auto, got iterations.threshold 0.5, "
        "prune_iterations 1; write prune_iterations: auto, or remove it",
    ),
    "window as long as the warm-up": (
        "warmup_epochs: auto\nwarmup: {most: 5}\n",
        "s.yaml:5: warmup.most must be > warmup.window, got warmup.most 5, warmup.window 5, warmup_epochs 'auto'; "
        "allow more epochs or compare with fewer",
    ),
    "indicator of fixed layers": (
        "warmup_epochs: auto\nwarmup: {rule: epi}\nmethod: srste\n",
        "s.yaml:5: warmup.rule must be overlap for srste: its layers always keep the same number of weights, got "
        "warmup.rule 'epi', method 'srste'; write warmup: {rule: overlap}",
    ),
    "iterations during training": (
        "prune_iterations: auto\nmethod: gmp\n",
        "s.yaml:4: prune_iterations must be a number for gmp, which prunes during training, got prune_iterations 'auto', "
        "method 'gmp'; write a number such as 50",
    ),
    "rewind beyond the first possible end": (
        "warmup_epochs: auto\nrewind: epoch 7\n",
        "s.yaml:5: rewind must name an epoch <= warmup.window with warmup_epochs auto, which may end there, got rewind "
        "'epoch 7', warmup.window 5; rewind less far",
    ),
    "no epochs left to train": (
        "warmup_epochs: auto\ntraining:\n  budget: total\n  epochs: 20\n",
        "s.yaml:7: training.epochs must be > warmup.most with training.budget total, got training.epochs 20, warmup.most 20; "
        "train longer or warm up shorter",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_error_has_line_rule_value_and_fix(name: str) -> None:
    text, expected = ERRORS[name]
    assert error_lines(BASE + text) == [expected]


def test_fixes_work() -> None:
    for text in (
        "warmup_epochs: auto\nwarmup: {most: 30}\n",
        "warmup_epochs: auto\nwarmup: {rule: overlap}\nmethod: srste\n",
        "prune_iterations: 50\nmethod: gmp\n",
    ):
        assert all(config == replace(config) for config in expand(load_text(BASE + text)))
