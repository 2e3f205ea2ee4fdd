"""Checks the networks of a sweep in a separate process while Ray starts, if the trials run on this machine's CPUs alone.

Otherwise a worker checks them (execution/autotune.py): on a cluster, on a GPU, and where `precision: auto` is open.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from threading import Thread
from typing import Any

from orchestrator.planning.plan import Plan
from orchestrator.planning.resolved_settings import leaves_precision_open, merge_settings, read_resolved, valid_on_device
from orchestrator.preflight.networks import NetworkChecks, Notify, unusable_networks
from orchestrator.process.child import ChildError, HungChildError, ask, serve
from orchestrator.process.patience import HINT, limit_s
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.local import node_cache
from trainables.config.keys import canonical, from_canonical
from trainables.config.trial import TrialConfig
from trainables.custom.files import CustomFiles
from trainables.data.facts import DataFacts
from trainables.data.source import DatasetSource
from trainables.data.staging import StagedDataset
from trainables.preflight.network_case import NetworkCase, NetworkReport, cases_of
from trainables.runtime.device import Runtime

POLL_INTERVAL_S = 0.2


class BackgroundNetworkChecks:
    """Checks all networks that have no report yet; a worker does it where this process cannot."""

    def __init__(self, folder: SweepFolder, plan: Plan, notify: Notify) -> None:
        self._reports: list[NetworkReport] = []
        self._thread: Thread | None = None
        self._hang: HungChildError | None = None
        self._folder, self._limit_s = folder, limit_s(plan.spec.stage_timeout)
        resources, cached = plan.spec.resources, valid_on_device("cpu", read_resolved(folder))
        precision_is_open = leaves_precision_open((trial.config for trial in plan.trials), cached)
        if resources.device != "cpu" or precision_is_open or resources.compile:
            return
        precision = cached.get("precision")
        checks = NetworkChecks(folder, plan, "cpu", node_cache())
        checks.load_cached(precision, notify)
        if cases := checks.unanswered(precision):
            request = _request(plan, cases, merge_settings(resources, cached).runtime(resources))
            self._thread = Thread(target=self._work, args=(request,), name="network checks", daemon=True)
            self._thread.start()

    def reports(self, interrupted: Callable[[], bool]) -> Sequence[NetworkReport]:
        """The reports, once all checks are finished.

        Raises:
            InterruptedError: `interrupted` returned True.
            UserError: a check hung.
        """
        while self._thread is not None and self._thread.is_alive():
            self._thread.join(POLL_INTERVAL_S)
            if interrupted():
                raise InterruptedError
        if self._hang is not None:
            self._folder.log(f"network checks: the stacks of their process\n{self._hang.stacks or 'are not known'}")
            raise unusable_networks(f" {self._hang}", HINT)
        return self._reports

    def _work(self, request: dict[str, Any]) -> None:
        try:
            response = ask(__name__, request, keep_errors=True, limit_s=self._limit_s)
        except HungChildError as error:
            self._hang = error
            return
        except ChildError:
            return  # a worker gets the same error, and reports it
        self._reports = [NetworkReport.from_json(report) for report in response]


def child_reports(plan: Plan, cases: Sequence[NetworkCase], runtime: Runtime) -> list[NetworkReport]:
    """The reports on these networks, checked in a separate process.

    Raises:
        UserError: a check hung, or its process ended.
    """
    try:
        response = ask(__name__, _request(plan, cases, runtime), keep_errors=True, limit_s=limit_s(plan.spec.stage_timeout))
    except ChildError as error:
        raise unusable_networks(f" {error}", HINT if isinstance(error, HungChildError) else "") from error
    return [NetworkReport.from_json(report) for report in response]


def _request(plan: Plan, cases: Sequence[NetworkCase], runtime: Runtime) -> dict[str, Any]:
    return {
        "configs": [canonical(config) for case in cases for config in case.configs],
        "source": asdict(plan.source),
        "facts": plan.data_facts and plan.data_facts.to_json(),
        "runtime": asdict(runtime),
        "custom_files": asdict(plan.custom_files),
    }


def main() -> None:
    """The child process: responds with the reports."""
    serve(_respond)


def _respond(request: dict[str, Any]) -> list[dict[str, Any]]:
    from trainables.preflight.network_checks import examine_cases

    cases = cases_of(from_canonical(TrialConfig, config) for config in request["configs"])
    data = StagedDataset(source=DatasetSource(**request["source"]))
    facts = request["facts"] and DataFacts.from_json(request["facts"])
    reports = examine_cases(cases, data, facts, Runtime(**request["runtime"]), CustomFiles(**request["custom_files"]))
    return [report.to_json() for report in reports]
