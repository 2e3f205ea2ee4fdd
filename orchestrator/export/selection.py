"""Which trial is exported: the recommended one of a group, or the one that the user names. Test accuracy decides nothing."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.command_line import command
from orchestrator.errors import SetupError, UserError
from orchestrator.recommendation.group_results import ConfigurationResults
from orchestrator.recommendation.recommendation import VALIDATION, Recommendation
from orchestrator.reporting.sweep_results import recommended
from orchestrator.search.overview import recorded_overview
from orchestrator.state.sweep_folder import SweepFolder, require_known_trials
from orchestrator.state.sweep_state import SweepState, TrialStatus
from orchestrator.state.trial_results import recorded_state
from trainables.wording import counted

EXPORT = "export"  # the command


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The trial.

    Attributes:
        result: content of its result.json.
        reason: why this one, in words.
        configuration: the results of all seeds of its configuration; None of a dense trial.
        recommendation: where that configuration is the recommended one.
    """

    trial: TrialStatus
    result: dict[str, Any]
    reason: str
    configuration: ConfigurationResults | None
    recommendation: Recommendation | None


def select_trial(folder: SweepFolder, key: str | None, sparsity: float | None, others: Sequence[str]) -> Selection:
    """The trial to export.

    Args:
        key: of the trial; by default one of the recommended configuration.
        sparsity: of the group.
        others: further options of the running command, for commands that messages print.

    Raises:
        UserError: there is no such trial, it has not finished, or several groups are left.
        SetupError: its record is damaged.
    """
    known = folder.read_state() or SweepState(sweep=folder.name)
    state, results, damage = recorded_state(folder.storage, known)
    overview = recorded_overview(folder) if state.search else None
    advice = recommended(folder, state, overview)
    if key is None:
        return _recommended(folder, state, advice, results, sparsity, others)
    if sparsity is not None:
        raise UserError("--sparsity: must not go with --trial, which names one model", "leave one out", code="option-invalid")
    require_known_trials(folder.name, [key], state.trials)
    if key in damage:
        raise SetupError(damage[key], f"`{command('resume', folder.name)}` computes the trial again", code="trial-damaged")
    if key not in results:
        raise UserError(
            f"--trial {key}: must be a finished trial, got one that is {known.trials[key].state}",
            f"`{command('resume', folder.name)}` finishes it",
            code="trial-not-finished",
        )
    return _selection(state.trials[key], results, advice, "chosen by its key")


def _recommended(
    folder: SweepFolder,
    state: SweepState,
    advice: list[Recommendation],
    results: dict[str, dict[str, Any]],
    sparsity: float | None,
    others: Sequence[str],
) -> Selection:
    if not advice:
        reason = (
            "no pruned trial has finished"
            if state.counts()["finished"] == 0
            else "it has no single objective, or only dense trials"
        )
        raise UserError(
            f"sweep {folder.name!r} recommends nothing: {reason}",
            f"`{command(EXPORT, folder.name, '--trial', 'KEY', *others)}` exports a finished trial; "
            f"`{command('status', folder.name)}` lists them",
            code="nothing-recommended",
        )
    groups = [one for one in advice if sparsity is None or one.best.config.sparsity == sparsity]
    if not groups:
        known = ", ".join(sorted({repr(one.best.config.sparsity) for one in advice}))
        raise UserError(
            f"--sparsity: must be that of a recommendation of {folder.name!r}, got {sparsity!r}",
            f"there is {known}",
            code="group-not-found",
        )
    if len(groups) > 1:
        raise _several_groups(folder.name, groups, others)
    (one,) = groups
    return _selection(one.best_trial, results, advice, _reason(one))


def _reason(one: Recommendation) -> str:
    where = f"of the configuration that is recommended for group {one.name}"
    if len(one.best.trials) == 1:
        return f"the only finished trial {where}"
    seeds = counted(len(one.best.trials), "seed")
    metric = "validation accuracy" if one.seed_metric == VALIDATION else one.seed_metric
    return f"the best one by {metric} of the {seeds} {where} (test accuracy decides nothing)"


def _several_groups(sweep: str, groups: list[Recommendation], others: Sequence[str]) -> UserError:
    sparsities = [one.best.config.sparsity for one in groups]
    lines = []
    for one, sparsity in zip(groups, sparsities, strict=True):
        unique = sparsities.count(sparsity) == 1
        choice = ("--sparsity", repr(sparsity)) if unique else ("--trial", one.best_trial.key)
        lines.append(f"  {one.name}: {command(EXPORT, sweep, *choice, *others)}")
    return UserError(
        f"sweep {sweep!r} has a recommendation for each of {len(groups)} groups",
        "\n".join(["choose one:", *lines]),
        code="group-ambiguous",
    )


def _selection(
    trial: TrialStatus, results: dict[str, dict[str, Any]], advice: Sequence[Recommendation], reason: str
) -> Selection:
    of_trial = [
        (one, configuration)
        for one in advice
        for configuration in one.results.configurations
        if any(each.key == trial.key for each in configuration.trials.values())
    ]
    recommendations = [one for one, configuration in of_trial if configuration is one.best]
    return Selection(
        trial=trial,
        result=results[trial.key],
        reason=reason,
        configuration=of_trial[0][1] if of_trial else None,
        recommendation=recommendations[0] if recommendations else None,
    )


def over_seeds(selection: Selection, metric: str) -> tuple[float, float | None, int] | None:
    """Mean and sample standard deviation of a metric over the seeds of the trial's configuration, and their number."""
    values = list(selection.configuration.metric(metric).values()) if selection.configuration else []
    if not values:
        return None
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values)
