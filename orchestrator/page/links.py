"""Links from the page into MLflow."""

from __future__ import annotations

from orchestrator.reporting.sweep_results import SweepResults
from orchestrator.tracking.client import is_server
from orchestrator.tracking.links import run_url
from orchestrator.tracking.target import tracking_target

LOCAL_UI = "http://127.0.0.1:5000"  # where `drive-sweep ui` serves a storage's own database


def mlflow_base(results: SweepResults) -> str:
    """The address of the MLflow UI; empty where the sweep has no runs in it."""
    if results.spec is None or not results.state.experiment_id:
        return ""
    uri = tracking_target(results.spec, results.folder.storage).uri
    return uri if is_server(uri) else LOCAL_UI


def link_to_run(results: SweepResults, base: str, run_id: str | None) -> str:
    """The page of a run; empty where there is none."""
    return run_url(base, str(results.state.experiment_id), run_id) if base and run_id else ""
