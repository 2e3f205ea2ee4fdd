"""Sends the last updates and the summary of a sweep to MLflow."""

from __future__ import annotations

import time
from dataclasses import replace

from orchestrator.command_line import command
from orchestrator.execution.driver import Driver
from orchestrator.execution.summarizing import sweep_summary, with_report
from orchestrator.planning.plan import Plan
from orchestrator.preflight.data import preflight_artifacts
from orchestrator.tracking.plan_runs import sweep_status
from orchestrator.tracking.plan_text import plan_text
from orchestrator.tracking.sweep_summary import SweepSummary

STALLED_S = 120.0  # without anything getting into MLflow, after which the rest is left to `sync`
MOST_S = 3600.0
STOPPED_MOST_S = 6.0  # after a request to stop: the sender of a signal will not wait for long
NOTICE_S = 30.0  # between messages on what is still to be sent


def close_tracking(driver: Driver, plan: Plan) -> None:
    """Brings MLflow up to date, as far as it can be reached; the report is uploaded as artifacts of the sweep's run."""
    earlier_signal = driver.signal
    status = sweep_status(driver.state)
    # A request after the last trial had finished stopped nothing.
    stopped = status != "FINISHED" and (earlier_signal is not None or driver.stop_deadline is not None)
    summary = _summary(driver, plan, report=not stopped)
    summary = replace(summary, recommended=()) if stopped else _with_artifacts(summary, driver, plan)
    driver.tracking.close_sweep("KILLED" if stopped else status, summary)
    most_s = STOPPED_MOST_S if stopped else MOST_S
    notices = _Notices(driver)

    def is_interrupted() -> bool:
        notices.print_if_due()
        return driver.signal != earlier_signal

    if not driver.tracking.flush(STALLED_S, most_s, give_up=is_interrupted):
        driver.screen.print(
            f"MLflow: {driver.tracking.pending} events could not be sent ({driver.tracking.last_error}); "
            f"results are safe, `{command('sync', plan.spec.name)}` sends them"
        )


class _Notices:
    """Says now and then how much is still to be sent, since nothing else moves on the screen."""

    def __init__(self, driver: Driver) -> None:
        self.driver, self.due = driver, time.monotonic() + NOTICE_S

    def print_if_due(self) -> None:
        if time.monotonic() >= self.due:
            self.due += NOTICE_S
            self.driver.screen.print(
                f"MLflow: {self.driver.tracking.pending:,} events are still to be sent; "
                f"Ctrl-C leaves them to `{command('sync', self.driver.folder.name)}`"
            )


def _summary(driver: Driver, plan: Plan, *, report: bool) -> SweepSummary:
    """What was found; what goes wrong with it must not fail a sweep."""
    try:
        return sweep_summary(driver.folder, driver.state, plan_text(plan, driver.folder.storage), report=report)
    except Exception as error:
        driver.screen.print(str(error))
        return SweepSummary()


def _with_artifacts(summary: SweepSummary, driver: Driver, plan: Plan) -> SweepSummary:
    """The summary with the report, if its figures can be drawn."""
    summary = replace(summary, artifacts=preflight_artifacts(plan, driver.folder.storage))
    try:
        return with_report(summary, driver.folder, driver.state)
    except Exception as error:
        again = command("report", driver.folder.name)
        driver.screen.print(f"the report could not be written ({error}); `{again}` tries again")
        return summary
