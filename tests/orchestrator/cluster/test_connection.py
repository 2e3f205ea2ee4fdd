"""What Ray Tune says of errors is in the log, not on the screen."""

from __future__ import annotations

import logging

import pytest

from orchestrator.cluster.connection import tune_logs_to


def test_errors_of_tune_go_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    lines: list[str] = []
    controller = logging.getLogger("ray.tune.execution.tune_controller")
    with tune_logs_to(lines.append):
        try:
            raise OSError("the actor died")
        except OSError:
            controller.exception("Trial task failed for trial %s", "a")
    assert lines[0].startswith("Ray Tune: Trial task failed for trial a\nTraceback")
    assert lines[0].endswith("OSError: the actor died")
    assert not caplog.records
    controller.error("later")
    assert len(lines) == 1
