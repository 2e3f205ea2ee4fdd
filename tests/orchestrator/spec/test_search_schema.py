"""Keys of an adaptive search: what they become, and that a sweep without them is as before."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.spec.axes import NOT_IN_CONFIGURATION, SEARCHABLE, TRIAL_KEYS, takes_range
from orchestrator.spec.grid import expand, representative_trials
from orchestrator.spec.json_schema import json_schema
from orchestrator.spec.loader import resolved, spec_from_resolved
from orchestrator.spec.ranges import Range
from orchestrator.spec.search_schema import METRICS, EarlyStopping, SearchBudget, Seeds, Strategy
from orchestrator.spec.yaml_document import parse
from tests.support.sweep_files import BASE, load_text
from trainables.analysis.model_stats import ModelStats
from trainables.config.trial import DatasetConfig, TrialConfig
from trainables.trial.result import cost_metrics, size_metrics

AXES = "search: {warmup_epochs: {min: 0, max: 8}, prune_iterations: [1, 10], sparsity: [0.9, 0.98], training.lr: [0.1, 0.2]}\n"
TPE = "strategy: {name: tpe, configurations: 30}\n"
FULL = (
    "search:\n  prune_iterations: {min: 1, max: 50, log: true}\n  sparsity: [0.9]\n  training.milestones: [[4], null]\n"
    "  training.lr: {min: 0.05, max: 0.2, step: 0.05}\n  warmup_epochs: [0, 4]\n"
    "strategy:\n  name: tpe\n  configurations: 30\n  seed: 3\n"
    "  axes: [prune_iterations, training.lr, training.milestones]\n"
    "  start_with: [{prune_iterations: 10}, {training.lr: 0.1, training.milestones: [4]}]\n  learn_from: [other]\n"
    "objective: val/loss\nearly_stopping: {name: asha, reduction: 2, grace_epochs: 2}\n"
    "seeds: {first: 3, most: 8, confidence: 0.9, indifference: 0.5}\nbudget: {hours: 1.5, epochs: 900}\n"
    "training: {epochs: 8}\n"
)


def test_every_key_of_a_search_is_read() -> None:
    spec = load_text(BASE + FULL)
    assert spec.search == {
        "prune_iterations": Range(1, 50, log=True),
        "sparsity": (0.9,),
        "training.milestones": ((4,), None),
        "training.lr": Range(0.05, 0.2, step=0.05),
        "warmup_epochs": (0, 4),
    }
    assert spec.strategy == Strategy(
        name="tpe",
        configurations=30,
        seed=3,
        axes=("prune_iterations", "training.lr", "training.milestones"),
        start_with=({"prune_iterations": 10}, {"training.lr": 0.1, "training.milestones": (4,)}),
        learn_from=("other",),
    )
    assert spec.objective == {"val/loss": "min"}
    assert spec.early_stopping == EarlyStopping(name="asha", reduction=2, grace_epochs=2)
    assert spec.seeds == Seeds(first=3, most=8, confidence=0.9, indifference=0.5)
    assert spec.budget == SearchBudget(hours=1.5, epochs=900)


def test_sweep_without_search_keys_is_a_grid() -> None:
    spec = load_text(BASE + "search: {warmup_epochs: [0, 4], sparsity: [0.9], seed: [0, 1]}\n")
    assert not spec.is_search
    assert (spec.strategy, spec.objective) == (Strategy(name="grid"), {"val/accuracy": "max"})
    assert (spec.early_stopping, spec.seeds, spec.budget) == (None, None, None)
    assert representative_trials(spec) == expand(spec)


def test_resolved_form_of_before_is_the_same_sweep() -> None:
    """A spec.json that was written before these keys existed."""
    spec = load_text(BASE + "search: {sparsity: [0.9]}\n")
    new = ("strategy", "objective", "early_stopping", "seeds", "budget")
    assert spec_from_resolved({key: value for key, value in resolved(spec).items() if key not in new}) == spec


def test_search_keys_are_not_part_of_a_trial() -> None:
    assert not {"strategy", "objective", "early_stopping", "seeds", "budget"} & {key.split(".")[0] for key in TRIAL_KEYS}
    text = BASE + "search: {warmup_epochs: [0, 4]}\n"
    assert expand(load_text(text + "objective: val/loss\nbudget: {hours: 1}\n")) == expand(load_text(text))


@pytest.mark.parametrize("addition", [TPE, "early_stopping: {name: median}\n", "seeds: {most: 4}\n", "budget: {epochs: 9}\n"])
def test_each_search_key_makes_a_search(addition: str) -> None:
    assert load_text(BASE + "search: {warmup_epochs: [0, 4]}\n" + addition).is_search


def test_integers_and_floats_of_ranges_are_those_of_the_key() -> None:
    spec = load_text(BASE + TPE + "search: {warmup_epochs: {min: 0.0, max: 8, step: 2.0}, training.lr: {min: 1, max: 2}}\n")
    warmup, lr = spec.search.values()
    assert isinstance(warmup, Range)
    assert isinstance(lr, Range)
    assert [type(number) for number in (warmup.min, warmup.max, warmup.step, lr.min, lr.max)] == [int, int, int, float, float]


def test_strategy_can_be_a_name() -> None:
    text = BASE + "search: {warmup_epochs: [0, 4]}\n"
    assert load_text(text + "strategy: grid\n") == load_text(text + "strategy: {name: grid}\n") == load_text(text)


def test_options_add_keys_to_a_strategy_that_is_a_name() -> None:
    text = BASE + "search: {warmup_epochs: [0, 4]}\nstrategy: tpe\n"
    assert load_text(text, "strategy.configurations=9").strategy == Strategy(name="tpe", configurations=9)
    options = ("strategy=random", "strategy.configurations=9", "search.warmup_epochs={min: 0, max: 4}")
    spec = load_text(text, *options)
    assert spec.strategy == Strategy(name="random", configurations=9)
    assert spec.search == {"warmup_epochs": Range(0, 4)}


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        ("val/accuracy", {"val/accuracy": "max"}),
        ("cost/search_dense_epochs", {"cost/search_dense_epochs": "min"}),
        ("{val/accuracy: max, model/flops: min}", {"val/accuracy": "max", "model/flops": "min"}),
        ("{model/flops: max}", {"model/flops": "max"}),
    ],
)
def test_objective_has_a_direction_for_each_metric(objective: str, expected: dict[str, str]) -> None:
    assert load_text(BASE + f"objective: {objective}\n").objective == expected


def test_axes_and_groups_are_in_the_order_of_the_file() -> None:
    spec = load_text(BASE + TPE + "seed: 3\n" + AXES)
    assert spec.configuration_axes == ("warmup_epochs", "prune_iterations")
    assert spec.group_axes == ("sparsity", "training.lr")
    axes = "strategy: {name: tpe, configurations: 9, axes: [training.lr, warmup_epochs]}\n"
    spec = load_text(BASE + axes + AXES.replace("{warmup", "{seed: [0, 1], warmup"))
    assert spec.configuration_axes == ("warmup_epochs", "training.lr")
    assert spec.group_axes == ("prune_iterations", "sparsity")


def test_a_range_is_part_of_the_configuration() -> None:
    spec = load_text(BASE + TPE + "search: {training.lr: {min: 0.1, max: 0.2}, training.momentum: [0.9], warmup_epochs: [1]}\n")
    assert (spec.configuration_axes, spec.group_axes) == (("training.lr", "warmup_epochs"), ("training.momentum",))


def test_representative_trials_have_bounds_and_first_seeds() -> None:
    text = BASE + TPE + "baseline: none\nseed: 5\nseeds: {first: 2, most: 4}\n"
    trials = representative_trials(load_text(text + "search: {warmup_epochs: {min: 1, max: 8}, sparsity: [0.9]}\n"))
    config = TrialConfig(dataset=DatasetConfig(name="digits"), model="convnet", sparsity=0.9)
    assert trials == [replace(config, warmup_epochs=warmup, seed=seed) for warmup in (1, 8) for seed in (5, 6)]


def test_resolved_form_restores_a_search() -> None:
    spec = load_text(BASE + FULL)
    plain = json.loads(json.dumps(resolved(spec)))
    assert plain["search"]["prune_iterations"] == {"min": 1, "max": 50, "log": True}
    assert spec_from_resolved(plain) == spec
    assert load_text(json.dumps(plain)) == spec


def test_ranges_are_for_numbers_that_can_be_compared() -> None:
    with_range = {key for key in SEARCHABLE if takes_range(key)}
    assert {"warmup_epochs", "prune_iterations", "training.lr", "warmup.lr", "training.clip_norm", "width"} <= with_range
    assert not with_range & (NOT_IN_CONFIGURATION.keys() | {"model", "rewind", "training.nesterov", "training.milestones"})


def test_metrics_are_those_of_a_result() -> None:
    config = TrialConfig(dataset=DatasetConfig(name="digits"), model="convnet")
    stats = ModelStats(
        parameters=4,
        kept_parameters=2,
        prunable=4,
        kept=2,
        connected_weights=2,
        flops=8,
        kept_flops=4,
        layer_flops={},
        kept_layer_flops={},
    )
    known = cost_metrics(config, {"warmup": 1, "prune": 1, "train": 1}) | size_metrics(stats)
    assert known.keys() <= METRICS.keys()
    assert {metric for metric in METRICS if metric.startswith("cost/")} <= known.keys()
    assert {metric for metric in METRICS if metric.startswith("model/")} - known.keys() == {"model/bytes"}


@pytest.mark.skipif(importlib.util.find_spec("jsonschema") is None, reason="jsonschema is not installed")
@pytest.mark.parametrize(
    ("addition", "is_valid"),
    [
        (FULL, True),
        ("strategy: random\n", True),
        ("objective: {val/accuracy: max}\n", True),
        ("early_stopping: null\n", True),
        ("search: {warmup.lr: {min: 0.1, max: 0.2}}\n", True),
        ("strategy: randomly\n", False),
        ("strategy: {name: tpe, trials: 3}\n", False),
        ("strategy: {configurations: 0}\n", False),
        ("strategy: {start_with: [{sparsity: 2}]}\n", False),
        ("strategy: {start_with: [{sed: 2}]}\n", False),
        ("objective: test/accuracy\n", False),
        ("objective: {}\n", False),
        ("early_stopping: {name: hyperband}\n", False),
        ("seeds: {first: 2}\n", False),
        ("budget: {hours: 0}\n", False),
        ("search: {sparsity: {min: 0.5, max: 0.9}}\n", False),
        ("search: {warmup_epochs: {min: 0}}\n", False),
        ("search: {warmup_epochs: {min: -1, max: 3}}\n", False),
        ("search: {warmup_epochs: {min: 0, max: 3, step: 0}}\n", False),
        ("search: {warmup_epochs: {min: 0, max: 3, by: 2}}\n", False),
        ("search: {warmup.lr: {min: null, max: 0.2}}\n", False),
    ],
)
def test_json_schema_has_the_keys_of_a_search(addition: str, is_valid: bool) -> None:
    import jsonschema

    data: Any = parse(BASE + addition, "f").data
    assert jsonschema.Draft202012Validator(json_schema()).is_valid(data) is is_valid
