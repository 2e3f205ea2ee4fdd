"""The summary of a sweep for MLflow: its description, figures for each group, recommended models, and the report."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace

from orchestrator.execution.descriptions import description
from orchestrator.page.artifacts import write_report
from orchestrator.recommendation.recommendation import VALIDATION, Recommendation
from orchestrator.recommendation.sentences import sentence
from orchestrator.reporting.search_section import SearchSection
from orchestrator.reporting.sweep_results import recommended
from orchestrator.search.overview import recorded_overview
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.state.sweep_state import SweepState
from orchestrator.state.trial_results import recorded_state
from orchestrator.tracking.group_names import group_names
from orchestrator.tracking.summary_metrics import BEST
from orchestrator.tracking.sweep_summary import RecommendedTrial, SweepSummary
from trainables.config.automatic import as_chosen
from trainables.config.trial import AXES

MEANS = {  # name in the summary -> metric of the trials
    "val_accuracy_of_seeds": VALIDATION,
    "test_accuracy": "test/accuracy",
    "sparsity": "model/sparsity",
    "compression_ratio": "model/compression_ratio",
    "theoretical_speedup": "model/theoretical_speedup",
}


def sweep_summary(folder: SweepFolder, state: SweepState, plan: str, *, report: bool = True) -> SweepSummary:
    """The summary of what has finished so far, without artifacts.

    Args:
        plan: what the sweep is, in Markdown.
        report: it will get the report as artifacts (`with_report`), which exists once a trial has finished.
    """
    state, results, _ = recorded_state(folder.storage, state)
    overview = recorded_overview(folder) if state.search else None
    advice = recommended(folder, state, overview)
    search = SearchSection.of(overview, state).lines() if overview else []
    names = group_names([(one.name, one.best.config.sparsity) for one in advice])
    return SweepSummary(
        description=description(state, advice, search, plan, report=report and bool(results)),
        metrics={
            f"{BEST}{name.group}/{metric}": value
            for name, one in zip(names, advice, strict=True)
            for metric, value in group_metrics(one).items()
        },
        step=len(results),
        time_ms=max((int(result["finished_ms"]) for result in results.values()), default=0),
        recommended=tuple(
            RecommendedTrial(
                group=name.group,
                alias=name.alias,
                trial_key=one.best_trial.key,
                network=str(one.best_trial.config["model"]),
                sentence=sentence(one),
            )
            for name, one in zip(names, advice, strict=True)
        ),
    )


def with_report(summary: SweepSummary, folder: SweepFolder, state: SweepState) -> SweepSummary:
    """The summary with the report as its artifacts."""
    return replace(summary, artifacts={**summary.artifacts, **write_report(folder, state)})


def group_metrics(one: Recommendation) -> dict[str, float]:
    """The figures of a group's best configuration; NaN where one is not known.

    The objective is what further seeds will give, with the bounds of its 95 % interval; other figures are means over its seeds.
    """
    objective = one.results.objective.replace("/", "_")
    low, high = one.interval or (None, None)
    lost = one.dense.difference
    figures: dict[str, float | None] = {
        objective: one.results.sign * one.choice.estimate.mean,
        f"{objective}_low": low,
        f"{objective}_high": high,
        f"{objective}_lost": None if lost is None else lost.mean,
        **{name: one.best.mean(metric) for name, metric in MEANS.items()},
        **_setting(one),
        "epochs": one.epochs[0],
        "seeds": len(one.best.trials),
    }
    return {name: math.nan if value is None else float(value) for name, value in figures.items()}


def _setting(one: Recommendation) -> dict[str, float]:
    """The numbers among the values of the configuration; of what its trials chose themselves, the mean."""
    chosen = [as_chosen(one.best.config, trial.metrics) for trial in one.best.trials.values()]
    setting = {"warmup_epochs": statistics.fmean(config.warmup_epochs for config in chosen)}
    if one.best.config.rounds:
        setting["prune_iterations"] = statistics.fmean(config.rounds for config in chosen)
    others = {key: value for key, value in one.best.values.items() if key not in AXES}
    return setting | {key: value for key, value in others.items() if type(value) in (int, float)}
