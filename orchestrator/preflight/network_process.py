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
from orchestrator.planning.resolved_settings import choices_of, leaves_precision_open, read_choices, valid_on_device
from orchestrator.preflight.networks import NetworkChecks, Tell
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

LOOK_S = 0.2


class ChecksBeside:
    """The checks of all networks that nothing is known of yet; what could not be checked here is left to a worker."""

    def __init__(self, folder: SweepFolder, plan: Plan, tell: Tell) -> None:
        self._reports: list[NetworkReport] = []
        self._thread: Thread | None = None
        resources, made = plan.spec.resources, valid_on_device("cpu", read_choices(folder))
        precision_is_open = leaves_precision_open((trial.config for trial in plan.trials), made)
        if resources.device != "cpu" or precision_is_open or resources.compile:
            return
        precision = made.get("precision")
        checks = NetworkChecks(folder, plan, "cpu", node_cache())
        checks.recall(precision, tell)
        if cases := checks.unanswered(precision):
            question = _question(plan, cases, choices_of(resources, made).runtime(resources))
            self._thread = Thread(target=self._work, args=(question,), name="network checks", daemon=True)
            self._thread.start()

    def reports(self, interrupted: Callable[[], bool]) -> Sequence[NetworkReport]:
        """What was found, once all is.

        Raises:
            InterruptedError: as the argument says.
        """
        while self._thread is not None and self._thread.is_alive():
            self._thread.join(LOOK_S)
            if interrupted():
                raise InterruptedError
        return self._reports

    def _work(self, question: dict[str, Any]) -> None:
        try:
            answer = ask(__name__, question, keep_errors=True)
        except ChildError:
            return  # a worker meets the same, and tells it
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
