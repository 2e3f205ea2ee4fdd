"""Sends the last updates and the report of a sweep to MLflow."""

from __future__ import annotations

from orchestrator.command_line import command
from orchestrator.execution.driver import Driver
from orchestrator.page.artifacts import write_report
from orchestrator.planning.plan import Plan
from orchestrator.preflight.data import preflight_artifacts
from orchestrator.reporting.report import outcome_text
from orchestrator.tracking.plan_runs import sweep_status

FLUSH_TIMEOUT_S = 120.0
STOPPED_FLUSH_TIMEOUT_S = 6.0  # after a request to stop: the sender of a signal will not wait for long


def close_tracking(driver: Driver, plan: Plan) -> None:
    """Brings MLflow up to date, as far as it can be reached; the report is uploaded as artifacts of the sweep's run."""
    earlier_signal = driver.signal
    status = sweep_status(driver.state)
    # A request after the last trial had finished stopped nothing.
    stopped = status != "FINISHED" and (earlier_signal is not None or driver.stop_deadline is not None)
    artifacts = {} if stopped else _report(driver) | preflight_artifacts(plan, driver.folder.storage)
    driver.tracking.close_sweep("KILLED" if stopped else status, artifacts, "" if stopped else _outcome(driver))
    timeout_s = STOPPED_FLUSH_TIMEOUT_S if stopped else FLUSH_TIMEOUT_S
    if not driver.tracking.flush(timeout_s, give_up=lambda: driver.signal != earlier_signal):
        driver.screen.print(
            f"MLflow: {driver.tracking.pending} events could not be sent ({driver.tracking.last_error}); "
            f"results are safe, `{command('sync', plan.spec.name)}` sends them"
        )


def _outcome(driver: Driver) -> str:
    """What was found; what goes wrong with it must not fail a sweep either."""
    try:
        return outcome_text(driver.folder, driver.state)
    except Exception as error:
        driver.screen.print(str(error))
        return ""


def _report(driver: Driver) -> dict[str, bytes]:
    """The report as artifacts; a figure that cannot be drawn must not fail a sweep."""
    try:
        return write_report(driver.folder, driver.state)
    except Exception as error:
        again = command("report", driver.folder.name)
        driver.screen.print(f"the report could not be written ({error}); `{again}` tries again")
        return {}
