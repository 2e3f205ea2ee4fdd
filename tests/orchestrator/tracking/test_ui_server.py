"""The UI of a store."""

from __future__ import annotations

from orchestrator.tracking.client import TrackingTarget
from orchestrator.tracking.ui_server import serve


def test_ui_of_a_server_is_at_its_address() -> None:
    with serve(TrackingTarget(uri="http://mlflow:5000", experiment="e", artifact_root=None)) as base:
        assert base == "http://mlflow:5000"
