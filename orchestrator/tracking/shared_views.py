"""Shared views of MLflow's page of runs: what a short link opens, with its filter, columns and charts.

They are tags of the experiment, as MLflow's button "Share" makes them; a link names one by its key. A tag holds the state of
MLflow's page, which is documented nowhere, so a test in a browser looks at what it shows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from orchestrator.tracking.runs import SUPERSEDED, SweepRuns

TAG = "mlflow.sharedViewState."  # before the key of a view
SHOWN_METRICS = ("val/accuracy", "test/accuracy")
SHOWN_OF_SWEEPS = ("val_accuracy", "test_accuracy", "warmup_epochs", "prune_iterations", "epochs")
MOST_COLUMNS = 20
MIN_WIDTH, WIDTH_OF_LETTER = 90, 9  # pixels
AXES = ("warmup_epochs", "prune_iterations")
SECTION = "drive-section"


def trials_view_key(sweep: str) -> str:
    """The key of the view of all trials."""
    return f"drive-{sweep}"


def sparsity_view_key(sweep: str, sparsity: float) -> str:
    """The key of the view that compares the trials at a sparsity."""
    return f"drive-{sweep}-s{sparsity!r}"


def sweeps_view_key(sweep: str) -> str:
    """The key of the view that compares the sweep with others of its experiment."""
    return f"drive-{sweep}-sweeps"


def save_views(runs: SweepRuns, summary_metrics: Iterable[str]) -> None:
    """Brings the views of the sweep up to date with its runs; equal ones are not sent again."""
    trials = [run for (role, _), run in runs.by_key.items() if role == "trial"]
    present_ones = [run.params for run in trials if SUPERSEDED not in run.tags]
    views = _views(runs.sweep, present_ones, without_superseded=len(present_ones) < len(trials))
    if columns := [name for name in summary_metrics if name.rpartition("/")[2] in SHOWN_OF_SWEEPS][:MOST_COLUMNS]:
        views[sweeps_view_key(runs.sweep)] = _table("tags.drive.role = 'sweep'", columns, [])
    present = runs.client.get_experiment(runs.experiment_id).tags if views else {}
    for key, view in views.items():
        text = json.dumps(view, separators=(",", ":"))
        if present.get(f"{TAG}{key}") != text:
            runs.client.set_experiment_tag(runs.experiment_id, f"{TAG}{key}", text)


def _views(sweep: str, trials: Iterable[Mapping[str, str]], *, without_superseded: bool) -> dict[str, dict[str, Any]]:
    """Key -> view: all trials, and those of each sparsity over warm-ups and iterations.

    Args:
        trials: params of each.
        without_superseded: leave out runs of trials that the sweep no longer has, which older servers cannot do.
    """
    params = list(trials)
    if not params:
        return {}
    every = f"tags.drive.sweep = '{sweep}' and tags.drive.role = 'trial'"
    every += f" and tags.{SUPERSEDED} IS NULL" if without_superseded else ""
    views = {trials_view_key(sweep): _table(every, SHOWN_METRICS, _varying(params))}
    sparsities = {one["sparsity"] for one in params if one.get("method") != "dense" and "sparsity" in one}
    for sparsity in sorted(sparsities, key=float):
        members = [one for one in params if one.get("sparsity") == sparsity]
        view = _table(f"{every} and params.sparsity = '{sparsity}'", SHOWN_METRICS, _varying(members))
        views[sparsity_view_key(sweep, float(sparsity))] = view | _charts(
            [name for name in _varying(members) if name != "seed"]
        )
    return views


def _varying(params: list[Mapping[str, str]]) -> list[str]:
    """The params that differ between trials, the axes first."""
    names = dict.fromkeys([*("sparsity", *AXES), *(name for one in params for name in one)])
    return [name for name in names if len({one.get(name) for one in params}) > 1]


def _table(query: str, metrics: Sequence[str], params: Sequence[str]) -> dict[str, Any]:
    """The runs that a query finds, best first metric first."""
    columns = {f"{kind}.`{name}`": name for kind, names in (("metrics", metrics), ("params", params)) for name in names}
    return {
        "searchFilter": query,
        "orderByKey": f"metrics.`{metrics[0]}`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "selectedColumns": list(columns),
        "columnOrder": list(columns),
        "columnWidths": {column: max(MIN_WIDTH, 20 + WIDTH_OF_LETTER * len(name)) for column, name in columns.items()},
    }


def _charts(params: list[str]) -> dict[str, Any]:
    """Params against validation accuracy as parallel coordinates, and its surface over both axes."""
    common = {"metricSectionId": SECTION, "deleted": False, "isGenerated": False, "runsCountToCompare": 10}
    parallel = common | {
        "type": "PARALLEL",
        "uuid": "drive-parallel",
        "selectedParams": params,
        "selectedMetrics": [SHOWN_METRICS[0]],
        "showAllRuns": True,
    }
    contour = common | {
        "type": "CONTOUR",
        "uuid": "drive-contour",
        "xaxis": {"key": AXES[0], "type": "PARAM"},
        "yaxis": {"key": AXES[1], "type": "PARAM"},
        "zaxis": {"key": SHOWN_METRICS[0], "type": "METRIC"},
    }
    section = {
        "uuid": SECTION,
        "name": "Settings against validation accuracy",
        "display": True,
        "columns": 2,
        "cardHeight": 380,
    }
    section |= {"isReordered": False, "deleted": False, "isGenerated": False}
    return {
        "compareRunCharts": [parallel, contour] if set(AXES) <= set(params) else [parallel],
        "compareRunSections": [section],
        "isAccordionReordered": True,  # else MLflow sorts the section behind its own
        "runsHiddenMode": "SHOW_ALL",
    }
