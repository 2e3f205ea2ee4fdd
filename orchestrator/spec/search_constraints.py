"""Rules of an adaptive search that involve several keys of a sweep file, each with a hint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orchestrator.command_line import command
from orchestrator.spec.axes import NOT_IN_CONFIGURATION, SEARCHABLE
from orchestrator.spec.error_messages import Problem, did_you_mean, dotted, format_value
from orchestrator.spec.ranges import Axis, Range
from orchestrator.spec.schema import SweepSpec
from orchestrator.spec.search_schema import ACCURACY, EACH_EPOCH, GRID, METRICS, EarlyStopping, SearchBudget
from orchestrator.spec.yaml_document import KeyPath

EXAMPLE = "configurations: 40"
VALIDATION_METRICS = ("val/", "prune/val_")


def search_problems(spec: SweepSpec) -> Iterator[Problem]:
    """The problems of the keys that only an adaptive search has."""
    for key, axis in spec.search.items():
        if isinstance(axis, Range):
            yield from _bound_problems(key, axis)
            yield from _place_problems(key, axis, spec)
    yield from _grid_problems(spec) if spec.strategy.name == GRID else _sampler_problems(spec)
    yield from _axes_problems(spec)
    yield from _objective_problems(spec)
    yield from _early_stopping_problems(spec)
    yield from _seeds_problems(spec)
    if spec.budget is not None and not any(spec.budget.model_dump().values()):
        *limits, last = SearchBudget.model_fields
        keys = [f"budget.{name}" for name in SearchBudget.model_fields]
        yield _problem(("budget",), f"have {', '.join(limits)} or {last}", "nothing", "add hours: 8", *keys)


def _problem(path: KeyPath, rule: str, got: str, hint: str, *others: str) -> Problem:
    """The problem at a path; `others` are keys that it involves besides that of the path."""
    key = dotted(tuple(step for step in path if isinstance(step, str))).removeprefix("search.")
    return Problem(path, f"must {rule}, got {got}", hint, frozenset({key, *others}))


def _bound_problems(key: str, axis: Range) -> Iterator[Problem]:
    """The problems of the numbers of a range with each other."""
    path, bounds = ("search", key), f"min {axis.min}, max {axis.max}"
    if axis.min >= axis.max:
        yield _problem((*path, "max"), "be > min", bounds, "write the smaller number as min", key)
    elif axis.step is not None and axis.step > axis.max - axis.min:
        yield _problem((*path, "step"), "be <= max - min", f"step {axis.step}, {bounds}", "take a smaller step", key)
    if axis.log and axis.step is not None:
        yield _problem((*path, "log"), "be false with a step", f"log true, step {axis.step}", "remove one of the two", key)
    if axis.log and axis.min <= 0:
        yield _problem((*path, "min"), "be > 0 with log", f"{axis.min}", "raise min or remove log", key)


def _place_problems(key: str, axis: Range, spec: SweepSpec) -> Iterator[Problem]:
    """The problem of a range whose values nothing would choose."""
    if spec.strategy.name == GRID:
        hint = f"write a list, or name a strategy such as strategy: {{name: tpe, {EXAMPLE}}}"
        yield _problem(("search", key), "be a list under strategy grid", str(axis), hint, "strategy.name")
    elif key not in spec.configuration_axes:
        hint = f"add {key} to strategy.axes or write a list"
        yield _problem(("search", key), "be a list if strategy.axes leaves it out", str(axis), hint, "strategy.axes")


def _grid_problems(spec: SweepSpec) -> Iterator[Problem]:
    """The keys that a grid does not have, since it tries every combination."""
    strategy = spec.strategy
    if strategy.configurations is not None:
        path, hint = ("strategy", "configurations"), "write it below budget, or name another strategy"
        yield _problem(path, "not be given under grid", format_value(strategy.configurations), hint, "strategy.name")
    for name, values in (("start_with", strategy.start_with), ("learn_from", strategy.learn_from)):
        if values:
            hint = "remove it, or name another strategy such as tpe"
            path = ("strategy", name)
            yield _problem(path, "not be given under grid", format_value(list(values)), hint, "strategy.name")


def _sampler_problems(spec: SweepSpec) -> Iterator[Problem]:
    """What every strategy except grid needs, and the configurations that it starts with."""
    strategy = spec.strategy
    if strategy.configurations is None:
        rule, hint = f"be given for {strategy.name}", f"write strategy: {{name: {strategy.name}, {EXAMPLE}}}"
        yield _problem(("strategy", "configurations"), rule, "nothing", hint, "strategy.name")
    if not spec.configuration_axes:
        rule, hint = "be grid without an axis to choose from", "add warmup_epochs, prune_iterations or a range to search"
        yield _problem(("strategy", "name"), rule, repr(strategy.name), hint, "strategy.axes", *SEARCHABLE)
    if spec.name in strategy.learn_from:
        path = ("strategy", "learn_from", strategy.learn_from.index(spec.name))
        yield _problem(path, "be another sweep", repr(spec.name), "remove it: `resume` reads a sweep's own trials", "name")
    for index, point in enumerate(strategy.start_with):
        if not point:
            yield _problem(("strategy", "start_with", index), "give a value for an axis", "none", "remove it")
        for key, value in point.items():
            yield from _start_problems(("strategy", "start_with", index, key), key, value, spec)


def _start_problems(path: KeyPath, key: str, value: Any, spec: SweepSpec) -> Iterator[Problem]:
    """The problem of a value of `start_with` that the strategy could not choose itself."""
    involved = ("strategy.start_with", "strategy.axes", key)
    if key not in spec.configuration_axes:
        hint = NOT_IN_CONFIGURATION.get(key) or f"known are {', '.join(spec.configuration_axes)}"
        yield _problem(path, "be the value of an axis that makes up a configuration", format_value(value), hint, *involved)
    elif not _contains(spec.search[key], value):
        rule, hint = f"be in search.{key}, {_text(spec.search[key])}", "add it there, or start with another value"
        yield _problem(path, rule, format_value(value), hint, *involved)


def _contains(axis: Axis, value: Any) -> bool:
    return axis.contains(value) if isinstance(axis, Range) else value in axis


def _text(axis: Axis) -> str:
    return format_value(axis if isinstance(axis, Range) else list(axis))


def _axes_problems(spec: SweepSpec) -> Iterator[Problem]:
    for index, key in enumerate(spec.strategy.axes or ()):
        path = ("strategy", "axes", index)
        if key in NOT_IN_CONFIGURATION:
            yield _problem(path, "be a key that may differ within a group", repr(key), NOT_IN_CONFIGURATION[key], key)
        elif key not in spec.search:
            hint = did_you_mean(key, spec.search) or f"write {key}: [value, value] below search"
            if key not in SEARCHABLE and not spec.search:
                hint = "write its values below search"
            yield _problem(path, "be a key of search", repr(key), hint, key)


def _objective_problems(spec: SweepSpec) -> Iterator[Problem]:
    """Objectives that are no metric of a trial, or of none that this sweep has."""
    for metric in spec.objective:
        path: KeyPath = ("objective",) if len(spec.objective) == 1 else ("objective", metric)
        if metric.startswith("test/"):
            hint = f"the test set decides nothing: take val/{metric.removeprefix('test/')}"
            yield _problem(path, "not be a test metric", format_value(metric), hint, "objective")
        elif metric not in METRICS:
            hint = did_you_mean(metric, METRICS) or f"`{command('guide', 'search')}` lists them"
            yield _problem(path, "be a metric of a finished trial", format_value(metric), hint, "objective")
    used = next((metric for metric in spec.objective if metric.startswith(VALIDATION_METRICS)), None)
    if used and spec.is_search and 0 in _values("dataset.validation", spec.dataset.validation, spec):
        rule, hint = f"be > 0 for the objective {used}", "hold out images, such as 0.1 of them"
        axis = ("search", "dataset.validation")
        path = axis if axis[1] in spec.search else ("dataset", "validation")
        yield _problem(path, rule, "0.0", hint, "objective")


def _early_stopping_problems(spec: SweepSpec) -> Iterator[Problem]:
    rule = spec.early_stopping
    if rule is None:
        return
    metric, *others = spec.objective
    if others:
        hint = "remove it or keep one objective"
        yield _problem(("early_stopping",), "not be given with several objectives", _listed(spec), hint, "objective")
    elif metric in METRICS and not metric.startswith(EACH_EPOCH):
        text, hint = "have an objective that every epoch records", "take val/accuracy or remove early_stopping"
        yield _problem(("early_stopping",), text, repr(metric), hint, "objective")
    if rule.name != "asha" and rule.reduction != EarlyStopping.model_fields["reduction"].default:
        path, hint = ("early_stopping", "reduction"), "remove it"
        yield _problem(path, f"not be given for {rule.name}", str(rule.reduction), hint, "early_stopping.name")
    shortest = min(_values("training.epochs", spec.training.epochs, spec))
    if rule.grace_epochs >= shortest:
        path, got = ("early_stopping", "grace_epochs"), f"grace_epochs {rule.grace_epochs}, training.epochs {shortest}"
        yield _problem(path, "be < training.epochs", got, "decide earlier or train longer", "training.epochs")


def _seeds_problems(spec: SweepSpec) -> Iterator[Problem]:
    seeds = spec.seeds
    if seeds is None:
        return
    if "seed" in spec.search:
        hint = "remove one of the two: seeds runs seed, seed + 1 and so on"
        yield _problem(("search", "seed"), "not be given beside seeds", _text(spec.search["seed"]), hint, "seeds.first")
    path, got = ("seeds", "most"), f"most {seeds.most}, first {seeds.first}"
    if seeds.most < seeds.first:
        yield _problem(path, "be >= first", got, f"write most: {seeds.first} or fewer first ones", "seeds.first")
    elif seeds.most > seeds.first and len(spec.objective) > 1:
        hint = f"write most: {seeds.first} or keep one objective"
        yield _problem(path, "be equal to first with several objectives", got, hint, "seeds.first", "objective")
    elif seeds.most > seeds.first and "indifference" not in seeds.model_fields_set:
        (metric,) = spec.objective
        if metric in METRICS and ACCURACY not in metric:
            rule, hint = f"be given in the unit of {metric}", "add indifference: 0 if every difference matters"
            yield _problem(("seeds", "indifference"), rule, "nothing", hint, "objective")


def _values(key: str, fixed: Any, spec: SweepSpec) -> tuple[Any, ...]:
    """The values of a key in the sweep; of a range its bounds."""
    axis = spec.search.get(key, (fixed,))
    return (axis.min, axis.max) if isinstance(axis, Range) else axis


def _listed(spec: SweepSpec) -> str:
    return ", ".join(spec.objective)
