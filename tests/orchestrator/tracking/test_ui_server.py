"""Links into the MLflow UI."""

from __future__ import annotations

from orchestrator.tracking.client import TrackingTarget
from orchestrator.tracking.ui_server import compare_url, run_url, serve


def test_ui_of_a_server_is_at_its_address() -> None:
    with serve(TrackingTarget(uri="http://mlflow:5000", experiment="e", artifact_root=None)) as base:
        assert base == "http://mlflow:5000"


def test_links_hold_quoted_ids_and_open_the_training_view() -> None:
    assert compare_url("http://h:5000/", "7", ["a", "b"]) == (
        "http://h:5000/#/compare-runs?runs=%5B%22a%22%2C%22b%22%5D&experiments=%5B%227%22%5D&workflowType=machine_learning"
    )
    assert run_url("http://h:5000/", "7", "a") == "http://h:5000/#/experiments/7/runs/a?workflowType=machine_learning"
