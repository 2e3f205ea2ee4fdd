"""The network checks of a sweep beside Ray's start, in a process of its own, where this machine's CPUs are all that computes.

Elsewhere a worker makes them (execution/autotune.py): on other machines, on a GPU, and where only the hardware tells the
precision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from threading import Thread
from typing import Any

from orchestrator.planning.plan import Plan
from orchestrator.planning.resolved_settings import leaves_precision_open, merge_settings, read_resolved, valid_on_device
from orchestrator.preflight.networks import NetworkChecks, Notify
from orchestrator.process.child import ChildError, ask, serve
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.local import node_cache
from trainables.config.keys import canonical, from_canonical
from trainables.config.trial import TrialConfig
from trainables.custom.files import CustomFiles
from trainables.data.facts import DataFacts
from trainables.data.source import DatasetSource
from trainables.data.staging import StagedDataset
from trainables.errors import TrialError
from trainables.preflight.network_case import NetworkCase, NetworkReport, cases_of
from trainables.runtime.device import Runtime

POLL_INTERVAL_S = 0.2


class BackgroundNetworkChecks:
    """Checks all networks without a report; those that cannot be checked here are left to a worker."""

    def __init__(self, folder: SweepFolder, plan: Plan, notify: Notify) -> None:
        self._reports: list[NetworkReport] = []
        self._thread: Thread | None = None
        resources, cached = plan.spec.resources, valid_on_device("cpu", read_resolved(folder))
        precision_is_open = leaves_precision_open((trial.config for trial in plan.trials), cached)
        if resources.device != "cpu" or precision_is_open or resources.compile:
            return
        precision = cached.get("precision")
        checks = NetworkChecks(folder, plan, "cpu", node_cache())
        checks.load_cached(precision, notify)
        if cases := checks.unanswered(precision):
            question = _question(plan, cases, merge_settings(resources, cached).runtime(resources))
            self._thread = Thread(target=self._work, args=(question,), name="network checks", daemon=True)
            self._thread.start()

    def reports(self, interrupted: Callable[[], bool]) -> Sequence[NetworkReport]:
        """The reports, once all checks are finished.

        Raises:
            InterruptedError: `interrupted` returned True.
        """
        while self._thread is not None and self._thread.is_alive():
            self._thread.join(POLL_INTERVAL_S)
            if interrupted():
                raise InterruptedError
        return self._reports

    def _work(self, question: dict[str, Any]) -> None:
        try:
            answer = ask(__name__, question, keep_errors=True)
        except ChildError:
            return  # a worker meets the same, and reports it
        self._reports = [NetworkReport.from_json(report) for report in answer]


def _question(plan: Plan, cases: Sequence[NetworkCase], runtime: Runtime) -> dict[str, Any]:
    return {
        "configs": [canonical(config) for case in cases for config in case.configs],
        "source": asdict(plan.source),
        "facts": plan.data_facts and plan.data_facts.to_json(),
        "runtime": asdict(runtime),
        "own": asdict(plan.custom_files),
    }


def main() -> None:
    """The child: answers with the reports, none if the networks could not be examined."""
    serve(_answer)


def _answer(question: dict[str, Any]) -> list[dict[str, Any]]:
    from trainables.preflight.network_checks import examine_cases

    cases = cases_of(from_canonical(TrialConfig, config) for config in question["configs"])
    data = StagedDataset(source=DatasetSource(**question["source"]))
    facts = question["facts"] and DataFacts.from_json(question["facts"])
    try:
        reports = examine_cases(cases, data, facts, Runtime(**question["runtime"]), CustomFiles(**question["own"]))
    except TrialError:
        return []
    return [report.to_json() for report in reports]
