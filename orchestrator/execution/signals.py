"""SIGINT, SIGTERM and SIGHUP as requests to stop."""

from __future__ import annotations

import signal
from types import FrameType

from orchestrator.execution.driver import Driver
from orchestrator.execution.shutdown_deadline import exit_after_deadline
from orchestrator.process.setup import stop_signals


def install_signal_handlers(driver: Driver) -> None:
    """Makes SIGINT, SIGTERM and SIGHUP request a clean stop; a second one stops without waiting."""

    def request_stop(number: int, frame: FrameType | None) -> None:
        if driver.signal is None:
            exit_after_deadline(number)
        else:
            driver.stop_deadline = 0.0
        driver.signal = number

    for number in stop_signals():
        signal.signal(number, request_stop)
