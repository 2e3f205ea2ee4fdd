"""Errors in the keys of an adaptive search: each is reported with its line, rule, value and a hint."""

from __future__ import annotations

import pytest

from tests.support.sweep_files import BASE, error_lines, load_text

NAMES = "one of grid, random, qmc, tpe, gp, nsga2"
SPARSITY = "different sparsities must not be compared: each has a group of its own"
RANGE = "search:\n  warmup_epochs: {min: 0, max: 8}\n"
TPE = "strategy: {name: tpe, configurations: 9}\n"
TWO = "objective: {val/accuracy: max, model/flops: min}\n"

# Added to BASE, which has lines 1 to 3 -> the whole message without its hint, and the hint.
PROBLEMS = {
    "misspelt strategy": ("strategy: tpee\n", f"4: strategy.name must be {NAMES}, got 'tpee'", "did you mean 'tpe'?"),
    "strategy is a number": (
        "strategy: 3\n",
        f"4: strategy must be {NAMES}, or a mapping of keys, got 3",
        "write `key: value` lines below it",
    ),
    "unknown key of the strategy": (
        "strategy: {trials: 3}\n",
        "4: strategy.trials must be a known key, got 'trials'",
        "known are name, configurations, seed, axes, start_with, learn_from",
    ),
    "strategy without a number": (
        "search: {warmup_epochs: [0, 1]}\nstrategy: random\n",
        "5: strategy.configurations must be given for random, got nothing",
        "write strategy: {name: random, configurations: 40}",
    ),
    "number under grid": (
        "search: {warmup_epochs: [0, 1]}\nstrategy:\n  configurations: 8\n",
        "6: strategy.configurations must not be given under grid, got 8",
        "write it below budget, or name another strategy",
    ),
    "no configuration": (
        "strategy: {name: random, configurations: 0}\nsearch: {warmup_epochs: [0, 1]}\n",
        "4: strategy.configurations must be >= 1, got 0",
        "correct it or remove it",
    ),
    "start under grid": (
        "search: {warmup_epochs: [0, 1]}\nstrategy: {start_with: [{warmup_epochs: 1}]}\n",
        "5: strategy.start_with must not be given under grid, got [{'warmup_epochs': 1}]",
        "remove it, or name another strategy such as tpe",
    ),
    "other sweeps under grid": (
        "strategy: {learn_from: [other]}\n",
        "4: strategy.learn_from must not be given under grid, got ['other']",
        "remove it, or name another strategy such as tpe",
    ),
    "nothing to choose": (
        "search: {sparsity: [0.9, 0.98]}\n" + TPE,
        "5: strategy.name must be grid without an axis to choose from, got 'tpe'",
        "add warmup_epochs, prune_iterations or a range to search",
    ),
    "a sweep that learns from itself": (
        "search: {warmup_epochs: [0, 1]}\nstrategy: {name: tpe, configurations: 9, learn_from: [a, x]}\n",
        "5: strategy.learn_from[1] must be another sweep, got 'x'",
        "remove it: `resume` reads a sweep's own trials",
    ),
    "name of a folder": (
        "search: {warmup_epochs: [0, 1]}\nstrategy: {name: tpe, configurations: 9, learn_from: [../a]}\n",
        "5: strategy.learn_from[0] must be at most 100 letters, digits, '.', '_' and '-', beginning with a letter or digit, "
        "got '../a'",
        "correct it or remove it",
    ),
    "repeated sweep": (
        "search: {warmup_epochs: [0, 1]}\nstrategy: {name: tpe, configurations: 9, learn_from: [a, a]}\n",
        "5: strategy.learn_from must be a list of names of sweeps without repeats, got ['a', 'a']",
        "correct it or remove it",
    ),
    "negative seed": ("strategy: {seed: -1}\n", "4: strategy.seed must be >= 0, got -1", "without the line it is 0"),
    "sparsity in a configuration": (
        "search: {sparsity: [0.9, 0.98], warmup_epochs: [0, 1]}\nstrategy:\n  axes:\n    - warmup_epochs\n    - sparsity\n",
        "8: strategy.axes[1] must be a key that may differ within a group, got 'sparsity'",
        SPARSITY,
    ),
    "seed in a configuration": (
        "search: {seed: [1, 2]}\nstrategy: {axes: [seed]}\n",
        "5: strategy.axes[0] must be a key that may differ within a group, got 'seed'",
        "seeds repeat a configuration: write seeds",
    ),
    "axis that is not searched": (
        "search: {warmup_epochs: [0, 1]}\nstrategy: {axes: [warmup_epoch, width]}\n",
        "5: strategy.axes[0] must be a key of search, got 'warmup_epoch'",
        "did you mean 'warmup_epochs'?",
    ),
    "repeated axis": (
        "search: {warmup_epochs: [0, 1]}\nstrategy: {axes: [warmup_epochs, warmup_epochs]}\n",
        "5: strategy.axes must be a list of keys of search without repeats, got ['warmup_epochs', 'warmup_epochs']",
        "correct it or remove it",
    ),
    "one axis without brackets": (
        "search: {warmup_epochs: [0, 1]}\nstrategy: {axes: warmup_epochs}\n",
        "5: strategy.axes must be a list of keys of search without repeats, got 'warmup_epochs'",
        "write [warmup_epochs]",
    ),
    "no axes": (
        "strategy: {axes: []}\n",
        "4: strategy.axes must be a list of keys of search without repeats, got []",
        "correct it or remove it",
    ),
    "start outside of a range": (
        RANGE + "strategy:\n  name: tpe\n  configurations: 9\n  start_with:\n    - warmup_epochs: 9\n",
        "10: strategy.start_with[0].warmup_epochs must be in search.warmup_epochs, {min: 0, max: 8}, got 9",
        "add it there, or start with another value",
    ),
    "start outside of a list": (
        "search: {warmup_epochs: [0, 4]}\nstrategy: {name: tpe, configurations: 9, start_with: [{warmup_epochs: 2}]}\n",
        "5: strategy.start_with[0].warmup_epochs must be in search.warmup_epochs, [0, 4], got 2",
        "add it there, or start with another value",
    ),
    "start against the rule of the key": (
        RANGE + "strategy: {name: tpe, configurations: 9, start_with: [{warmup_epochs: 4}, {warmup_epochs: -1}]}\n",
        "6: strategy.start_with[1].warmup_epochs must be >= 0, got -1",
        "correct it or remove it",
    ),
    "start with an unknown key": (
        RANGE + "strategy: {name: tpe, configurations: 9, start_with: [{warmup_epoch: 4}]}\n",
        "6: strategy.start_with[0].warmup_epoch must be a key of search, got 'warmup_epoch'",
        "did you mean 'warmup_epochs'?",
    ),
    "start with the key of a group": (
        RANGE + "  sparsity: [0.9]\nstrategy: {name: tpe, configurations: 9, start_with: [{sparsity: 0.9}]}\n",
        "7: strategy.start_with[0].sparsity must be the value of an axis that makes up a configuration, got 0.9",
        SPARSITY,
    ),
    "start with a key that is not searched": (
        RANGE + "strategy: {name: tpe, configurations: 9, start_with: [{width: 2}]}\n",
        "6: strategy.start_with[0].width must be the value of an axis that makes up a configuration, got 2",
        "known are warmup_epochs",
    ),
    "start with nothing": (
        RANGE + "strategy: {name: tpe, configurations: 9, start_with: [{}]}\n",
        "6: strategy.start_with[0] must give a value for an axis, got none",
        "remove it",
    ),
    "start with a word": (
        RANGE + "strategy: {name: tpe, configurations: 9, start_with: [best]}\n",
        "6: strategy.start_with[0] must be a mapping of keys of search to values, got 'best'",
        "correct it or remove it",
    ),
    "range under grid": (
        RANGE,
        "5: search.warmup_epochs must be a list under strategy grid, got {min: 0, max: 8}",
        "write a list, or name a strategy such as strategy: {name: tpe, configurations: 40}",
    ),
    "range that is no part of a configuration": (
        RANGE + "  training.lr: [0.1, 1]\nstrategy: {name: tpe, configurations: 9, axes: [training.lr]}\n",
        "5: search.warmup_epochs must be a list if strategy.axes leaves it out, got {min: 0, max: 8}",
        "add warmup_epochs to strategy.axes or write a list",
    ),
    "range of seeds": (
        TPE + "search: {warmup_epochs: [0, 1], seed: {min: 0, max: 3}}\n",
        "5: search.seed must be a list of values, got {'max': 3, 'min': 0}",
        "seeds repeat a configuration: write seeds",
    ),
    "range of sparsities": (
        TPE + "search: {warmup_epochs: [0, 1], sparsity: {min: 0.5, max: 0.9}}\n",
        "5: search.sparsity must be a list of values, got {'max': 0.9, 'min': 0.5}",
        SPARSITY,
    ),
    "range of words": (
        TPE + "search: {warmup_epochs: [0, 1], rewind: {min: 0, max: 1}}\n",
        "5: search.rewind must be a list of values, got {'max': 1, 'min': 0}",
        "only numbers can have a range",
    ),
    "bound against the rule of the key": (
        TPE + "search:\n  training.lr: {min: 0, max: 1}\n",
        "6: search.training.lr.min must be > 0, got 0",
        "correct it or remove it",
    ),
    "half an epoch": (
        TPE + "search:\n  warmup_epochs:\n    min: 0\n    max: 1.5\n",
        "8: search.warmup_epochs.max must be a whole number >= 0, got 1.5",
        "correct it or remove it",
    ),
    "infinite range": (
        TPE + "search: {training.lr: {min: 1, max: .inf}}\n",
        "5: search.training.lr.max must be a number > 0, got inf",
        "correct it or remove it",
    ),
    "range with one bound": (
        TPE + "search: {warmup_epochs: {min: 0}}\n",
        "5: search.warmup_epochs.max must be a whole number >= 0, got nothing",
        "add max: NUMBER",
    ),
    "range the wrong way round": (
        TPE + "search: {warmup_epochs: {min: 8, max: 8}}\n",
        "5: search.warmup_epochs.max must be > min, got min 8, max 8",
        "write the smaller number as min",
    ),
    "step zero": (
        TPE + "search: {warmup_epochs: {min: 0, max: 8, step: 0}}\n",
        "5: search.warmup_epochs.step must be >= 1, got 0",
        "correct it or remove it",
    ),
    "step beyond the range": (
        TPE + "search: {warmup_epochs: {min: 1, max: 8, step: 8}}\n",
        "5: search.warmup_epochs.step must be <= max - min, got step 8, min 1, max 8",
        "take a smaller step",
    ),
    "log with a step": (
        TPE + "search: {warmup_epochs: {min: 1, max: 8, step: 2, log: true}}\n",
        "5: search.warmup_epochs.log must be false with a step, got log true, step 2",
        "remove one of the two",
    ),
    "log from zero": (
        TPE + "search: {warmup_epochs: {min: 0, max: 8, log: true}}\n",
        "5: search.warmup_epochs.min must be > 0 with log, got 0",
        "raise min or remove log",
    ),
    "log is a number": (
        TPE + "search: {warmup_epochs: {min: 1, max: 8, log: 10}}\n",
        "5: search.warmup_epochs.log must be true or false, got 10",
        "correct it or remove it",
    ),
    "unknown key of a range": (
        TPE + "search: {warmup_epochs: {min: 1, max: 8, steps: 10}}\n",
        "5: search.warmup_epochs.steps must be a key of a range, got 'steps'",
        "did you mean 'step'?",
    ),
    "corner of a range": (
        TPE + "rewind: epoch 3\nsearch:\n  warmup_epochs: {min: 2, max: 8}\n",
        "5: rewind must name an epoch <= warmup_epochs, got rewind 'epoch 3', warmup_epochs 2",
        "rewind less far or warm up longer",
    ),
    "other corner of a range": (
        TPE + "search:\n  warmup_epochs: {min: 2, max: 8}\ntraining: {budget: total, epochs: 8}\n",
        "7: training.epochs must be > warmup_epochs with training.budget total, got training.epochs 8, warmup_epochs 8",
        "train longer or warm up shorter",
    ),
    "corner of a range, at its bound": (
        TPE + "warmup_epochs: 4\ntraining: {budget: total}\nsearch:\n  training.epochs:\n    max: 8\n    min: 4\n",
        "10: search.training.epochs.min must be > warmup_epochs with training.budget total, got training.epochs 4, "
        "warmup_epochs 4",
        "train longer or warm up shorter",
    ),
    "test metric": (
        "objective: test/accuracy\n",
        "4: objective must not be a test metric, got 'test/accuracy'",
        "the test set decides nothing: take val/accuracy",
    ),
    "misspelt metric": (
        "objective:\n  val/loss: min\n  val/acuracy: max\n",
        "6: objective.val/acuracy must be a metric of a finished trial, got 'val/acuracy'",
        "did you mean 'val/accuracy'?",
    ),
    "unknown metric": (
        "objective: speed\n",
        "4: objective must be a metric of a finished trial, got 'speed'",
        "`drive-sweep guide search` lists them",
    ),
    "unknown direction": (
        "objective: {val/loss: minimum}\n",
        "4: objective.val/loss must be one of max, min, got 'minimum'",
        "did you mean 'min'?",
    ),
    "no objective": (
        "objective: {}\n",
        "4: objective must be a metric, or a mapping of metrics to max or min, got {}",
        "without the line it is val/accuracy",
    ),
    "objective without validation images": (
        "search: {warmup_epochs: [0, 1], dataset.validation: [0.1, 0]}\nbudget: {hours: 1}\n",
        "4: search.dataset.validation must be > 0 for the objective val/accuracy, got 0.0",
        "hold out images, such as 0.1 of them",
    ),
    "early stopping without a rule": (
        "early_stopping: {reduction: 2}\n",
        "4: early_stopping.name must be one of asha, median, got nothing",
        "add name: asha",
    ),
    "early stopping for several objectives": (
        TWO + "early_stopping: {name: asha}\n",
        "5: early_stopping must not be given with several objectives, got val/accuracy, model/flops",
        "remove it or keep one objective",
    ),
    "early stopping by a final metric": (
        "objective: model/flops\nearly_stopping: {name: asha}\n",
        "5: early_stopping must have an objective that every epoch records, got 'model/flops'",
        "take val/accuracy or remove early_stopping",
    ),
    "rungs of the median": (
        "early_stopping: {name: median, reduction: 2}\n",
        "4: early_stopping.reduction must not be given for median, got 2",
        "remove it",
    ),
    "reduction one": (
        "early_stopping: {name: asha, reduction: 1}\n",
        "4: early_stopping.reduction must be >= 2, got 1",
        "without the line it is 3",
    ),
    "decision after the end": (
        "search: {training.epochs: [20, 8]}\nearly_stopping: {name: asha, grace_epochs: 8}\n",
        "5: early_stopping.grace_epochs must be < training.epochs, got grace_epochs 8, training.epochs 8",
        "decide earlier or train longer",
    ),
    "decision before the first epoch": (
        "early_stopping: {name: asha, grace_epochs: 0}\n",
        "4: early_stopping.grace_epochs must be >= 1, got 0",
        "without the line it is 1",
    ),
    "more seeds than fit into memory": (
        "seeds: {first: 9007199254740992, most: 4}\n",
        "4: seeds.first must be in [1, 10000], got 9007199254740992",
        "without the line it is 2",
    ),
    "no seed": ("seeds: {first: 0, most: 4}\n", "4: seeds.first must be in [1, 10000], got 0", "without the line it is 2"),
    "seeds twice": (
        "search:\n  seed: [0, 1]\nseeds: {most: 4}\n",
        "5: search.seed must not be given beside seeds, got [0, 1]",
        "remove one of the two: seeds runs seed, seed + 1 and so on",
    ),
    "seeds without an end": (
        "seeds: {first: 2}\n",
        "4: seeds.most must be a whole number in [1, 10000], got nothing",
        "add most: NUMBER",
    ),
    "fewer seeds than the first": (
        "seeds: {first: 3, most: 2}\n",
        "4: seeds.most must be >= first, got most 2, first 3",
        "write most: 3 or fewer first ones",
    ),
    "more seeds for several objectives": (
        TWO + "seeds: {first: 2, most: 4}\n",
        "5: seeds.most must be equal to first with several objectives, got most 4, first 2",
        "write most: 2 or keep one objective",
    ),
    "indifference of a loss": (
        "objective: val/loss\nseeds: {most: 4}\n",
        "5: seeds.indifference must be given in the unit of val/loss, got nothing",
        "add indifference: 0 if every difference matters",
    ),
    "a coin": (
        "seeds: {most: 4, confidence: 0.5}\n",
        "4: seeds.confidence must be in (0.5, 1), got 0.5",
        "without the line it is 0.95",
    ),
    "negative indifference": (
        "seeds: {most: 4, indifference: -1}\n",
        "4: seeds.indifference must be >= 0, got -1",
        "without the line it is 0.2",
    ),
    "empty budget": (
        "budget: {}\n",
        "4: budget must have hours, gpu_hours, epochs or configurations, got nothing",
        "add hours: 8",
    ),
    "no time": ("budget: {hours: 0}\n", "4: budget.hours must be > 0, got 0", "correct it or remove it"),
    "no GPU time": ("budget: {gpu_hours: 0}\n", "4: budget.gpu_hours must be > 0, got 0", "correct it or remove it"),
    "no epoch": ("budget: {epochs: 0}\n", "4: budget.epochs must be >= 1, got 0", "correct it or remove it"),
    "half a configuration": (
        "budget: {configurations: 1.5}\n",
        "4: budget.configurations must be a whole number >= 1, got 1.5",
        "correct it or remove it",
    ),
    "epochs of the schedule": ("epochs: 3\n", "4: epochs must be a known key, got 'epochs'", "did you mean 'training.epochs'?"),
    "budget of the schedule": (
        "budget: total\n",
        "4: budget must be a mapping of keys, got 'total'",
        "write training: {budget: total}",
    ),
}


@pytest.mark.parametrize(("addition", "message", "hint"), PROBLEMS.values(), ids=PROBLEMS)
def test_problem_of_a_search_is_reported(addition: str, message: str, hint: str) -> None:
    assert f"s.yaml:{message}; {hint}" in error_lines(BASE + addition)


def test_one_problem_is_one_line() -> None:
    """A value that is reported already causes no further errors."""
    for name, (addition, _, _) in PROBLEMS.items():
        expected = 2 if name == "axis that is not searched" else 1
        assert len(error_lines(BASE + addition)) == expected, name


def test_problems_of_a_search_are_reported_with_all_others() -> None:
    for addition, place in (
        ("early_stopping: {reduction: 2}\n", "s.yaml:4: early_stopping.name"),
        (TPE + "search: {training.lr: {min: 0, max: 1}}\n", "s.yaml:5: search.training.lr.min"),
    ):
        first, second = error_lines(BASE + addition + "rewind: epoch 3\n")
        assert first.startswith(place)
        assert "rewind must name an epoch <= warmup_epochs" in second


@pytest.mark.parametrize(
    "addition",
    [
        TPE + RANGE + "seeds: {first: 2, most: 2}\n" + TWO,
        "search: {warmup_epochs: [0, 1]}\nearly_stopping: {name: median, reduction: 3, grace_epochs: 7}\n"
        "training: {epochs: 8}\n",
        "dataset: {name: digits, validation: 0}\nmodel: convnet\nname: x\nbudget: {hours: 1}\nobjective: train/loss\n",
        TPE + "search: {warmup_epochs: {min: 0, max: 8, step: 8, log: false}}\n",
        "search: {dataset.validation: [0, 0.1]}\n",
        "objective: cost/total_seconds\nseeds: {most: 4, indifference: 0}\n",
        "objective: val/loss\nseeds: {first: 2, most: 2}\n",
    ],
)
def test_limits_of_the_rules_are_allowed(addition: str) -> None:
    load_text(addition if "name: x" in addition else BASE + addition)
