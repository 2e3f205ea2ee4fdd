"""A recommendation in words."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from orchestrator.recommendation.choice import Certainty
from orchestrator.recommendation.group_results import ConfigurationResults
from orchestrator.recommendation.recommendation import Gain, Recommendation
from orchestrator.search.space import values_text
from trainables.config.automatic import as_chosen
from trainables.wording import counted

AXIS_WORDS = {"warmup_epochs": "warm-up epoch", "prune_iterations": "iteration"}


def sentence(one: Recommendation) -> str:
    """What to take, what it gives, and what that is against the dense network, in one sentence."""
    parts = [_value_text(one), *_dense_text(one)]
    mixed = "".join(f"; {file.sentence}" for file in one.earlier_files)
    name = f"{one.name} (reconstruction)" if one.best.config.pruning.is_reconstruction else one.name
    return f"{name}: {configuration_text(one.best)}: {', '.join(parts)}{mixed}"


def certainty_text(one: Recommendation) -> str:
    """How sure the choice is, in a sentence."""
    choice, others = one.choice, len(one.results.configurations) - 1
    if choice.certainty is Certainty.ALONE:
        return "there is no other configuration to compare it with"
    if choice.certainty is Certainty.UNKNOWN:
        return f"how sure that is cannot be said: {_why_unknown(one)}"
    if choice.certainty is Certainty.SETTLED:
        return f"settled: {_no_other(others)} better by more than {_difference(one, one.indifference)} (95 %)"
    rivals = counted(len(choice.rivals), "other configuration")
    at_most = f"may be better, by at most {_difference(one, max(choice.rivals.values()))} (95 %)"
    if choice.more_seeds is None:
        return f"not settled: {rivals} {at_most}"
    seeds = counted(choice.more_seeds, "more seed")
    if choice.certainty is Certainty.MORE_SEEDS:
        return f"needs about {seeds}: {rivals} {at_most}"
    return f"cannot be distinguished from {rivals}, which {at_most}; that would take about {seeds}"


def short_form(one: Recommendation) -> dict[str, Any]:
    """The recommendation for a line of a table; the interval is None where it is not known."""
    interval = None if one.interval is None else "{} to {}".format(*(_number(one, bound) for bound in one.interval))
    return {
        "configuration": configuration_text(one.best),
        "objective": one.results.objective,
        "value": _number(one, one.results.sign * one.choice.estimate.mean),
        "interval": interval,
        "certainty": _certainty_word(one),
        "seeds": len(one.best.trials),
    }


def _certainty_word(one: Recommendation) -> str:
    choice = one.choice
    if choice.certainty is Certainty.MORE_SEEDS and choice.more_seeds is not None:
        return f"needs {counted(choice.more_seeds, 'more seed')}"
    words = {Certainty.SETTLED: "settled", Certainty.ALONE: "the only one", Certainty.UNKNOWN: "not known how sure"}
    return words.get(choice.certainty, "not settled")


def details(one: Recommendation) -> list[str]:
    """The cheapest configuration that is not worse, and what more of each axis buys."""
    lines = [certainty_text(one)]
    if one.cheapest is not None:
        lines.append(f"cheapest that is not shown to be worse: {configuration_text(one.cheapest)}{_saved_text(one)}")
    return lines + [_gain_text(one, gain) for gain in one.gains]


def details_of_all(recommendations: Sequence[Recommendation]) -> list[list[str]]:
    """The details of each; of several, one without another configuration to compare it with has none."""
    if len(recommendations) == 1:
        return [details(recommendations[0])]
    return [[] if one.choice.certainty is Certainty.ALONE else details(one) for one in recommendations]


def configuration_text(one: ConfigurationResults) -> str:
    """What to do, with the numbers that the trials chose themselves."""
    values = _chosen_values(one)
    parts = []
    if "warmup_epochs" in values:
        parts.append(f"warm up {_counted(values.pop('warmup_epochs'), 'epoch')}")
    if "prune_iterations" in values:
        parts.append(f"prune in {_counted(values.pop('prune_iterations'), 'iteration')}")
    if one.config.level_epochs:
        parts.append(f"prune in {counted(one.config.rounds, 'level')}")
    parts += [values_text(values)] if values else []
    return ", ".join(parts) or one.config.method


def _chosen_values(one: ConfigurationResults) -> dict[str, Any]:
    """The values of the configuration, and those that its trials chose themselves."""
    values: dict[str, Any] = dict(one.values)
    chosen = [as_chosen(one.config, trial.metrics) for trial in one.trials.values()]
    if one.config.warmup.auto:
        values["warmup_epochs"] = _span([each.warmup_epochs for each in chosen])
    if one.config.iterations.auto:
        values["prune_iterations"] = _span([each.prune_iterations for each in chosen])
    return values


def _span(numbers: list[int]) -> int | str:
    low, high = min(numbers), max(numbers)
    return low if low == high else f"{low} to {high}"


def _counted(number: int | str, noun: str) -> str:
    return counted(number, noun) if isinstance(number, int) else f"{number} {noun}s"


def _value_text(one: Recommendation) -> str:
    expected = _number(one, one.results.sign * one.choice.estimate.mean)
    seeds = counted(len(one.best.trials), "seed")
    value = f"{one.results.objective} {expected}"
    if one.interval is None:
        return f"{value} ({seeds}, so its interval is not known)"
    low, high = one.interval
    mean = _number(one, statistics.fmean(one.best.metric(one.results.objective).values()))
    interval = f"95 %: {_number(one, low)} to {_number(one, high)}"
    return f"{value} ({interval}, {seeds})" if mean == expected else f"{value} ({interval}); its {seeds} gave {mean}"


def _dense_text(one: Recommendation) -> list[str]:
    parts = []
    if (lost := one.dense.difference) is not None:
        word = "worse" if lost.mean >= 0 else "better"
        interval = ""
        if lost.interval is not None:  # of how much is lost, so that its ends change their places
            interval = f" (95 %: {_signed(one, -lost.interval[1])} to {_signed(one, -lost.interval[0])})"
        parts.append(f"{_difference(one, abs(lost.mean))} {word} than dense{interval}")
    if one.dense.times_smaller is not None:
        parts.append(f"{one.dense.times_smaller:.3g} times fewer parameters")
    if one.dense.times_fewer_flops is not None:
        parts.append(f"{one.dense.times_fewer_flops:.3g} times fewer multiply-adds")
    return parts


def _number(one: Recommendation, value: float) -> str:
    return f"{100 * value:.2f} %" if one.is_accuracy else f"{value:.4g}"


def _difference(one: Recommendation, value: float) -> str:
    return f"{100 * value:.2f} points" if one.is_accuracy else f"{value:.3g}"


def _no_other(others: int) -> str:
    return "the other configuration is not" if others == 1 else f"none of the {others} other configurations is"


def _why_unknown(one: Recommendation) -> str:
    most = max(len(each.trials) for each in one.results.configurations)
    return "each configuration has one seed" if most == 1 else "too few trials to know the noise"


def _saved_text(one: Recommendation) -> str:
    means, (best, cheapest) = one.choice.fit.means, one.epochs
    parts = [f"{_signed(one, means[one.choice.cheapest] - means[one.choice.best])} in the mean"]
    if best is not None and cheapest is not None:
        parts.append(f"costs {cheapest:.3g} instead of {best:.3g} epochs")
    return f" ({', '.join(parts)})"


def _gain_text(one: Recommendation, gain: Gain) -> str:
    word = AXIS_WORDS[gain.axis]
    interval = "interval not known"
    if gain.interval is not None:
        low, high = gain.interval
        interval = f"95 %: {_signed(one, low)} to {_signed(one, high)}"
    return f"{counted(gain.next_value, word)} instead of {gain.value}: {_signed(one, gain.difference)} ({interval})"


def _signed(one: Recommendation, value: float) -> str:
    value *= one.results.sign
    return f"{100 * value:+.2f} points" if one.is_accuracy else f"{value:+.3g}"
