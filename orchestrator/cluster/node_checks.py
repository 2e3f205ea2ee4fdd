"""Checks before the first trial that every node of a cluster sees the storage and has the data.

The driver and the nodes each write a file to the storage and read the other's. Nodes without the data get the decoded images
from the driver's node, if these are small.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ray

from orchestrator.cluster.capacity import address_of, alive_nodes
from orchestrator.cluster.node_info import Problem
from orchestrator.cluster.remote_call import only_on, reason_of
from orchestrator.cluster.shared_storage_probe import SharedStorageProbe
from orchestrator.cluster.watched_process import HungProcessError, WatchedProcess
from orchestrator.command_line import command
from orchestrator.errors import SetupError
from orchestrator.planning.plan import Plan
from orchestrator.process.patience import FUNCTION_S, limit_s
from orchestrator.storage.base import Storage
from trainables.config.trial import TrialConfig
from trainables.custom.files import CustomFiles
from trainables.data.staging import StagedDataset
from trainables.errors import TrialError, WrongNodeError

NODE_TIMEOUT_S = 150.0  # for other nodes, after the first one has answered; on a dead NFS mount a process hangs for ever
WAIT_MESSAGE_S = 30.0
HANG_HINT = "check whether its storage, its data or the sweep's modules hang there"


@dataclass(frozen=True, kw_only=True)
class NodeReport:
    """What a node lacks.

    Attributes:
        error: why the checks could not run.
        trial_error: why a trial fails on this node; on others it may not.
        fetched: the node has no data and was given the decoded images.
    """

    storage: Problem | None = None
    data: Problem | None = None
    error: Problem | None = None
    trial_error: Problem | None = None
    fetched: bool = False


def node_report(
    name: str, probe: SharedStorageProbe, data: StagedDataset, config: TrialConfig, custom_files: CustomFiles
) -> NodeReport:
    """What this node lacks; decodes its data."""
    if problem := probe.check(name):
        return NodeReport(storage=problem)
    report = files_report(data, config, custom_files)
    if report.data:
        return report
    try:
        custom_files.import_modules(config)
        data.prepare()
    except WrongNodeError as error:
        return NodeReport(data=Problem.of(error))
    except TrialError as error:
        return NodeReport(trial_error=Problem.of(error))
    return report


def files_report(data: StagedDataset, config: TrialConfig, custom_files: CustomFiles) -> NodeReport:
    """What this node lacks of the data and of the custom files; decodes nothing."""
    try:
        fetched = data.locate().decoded is not None
    except WrongNodeError as error:
        return NodeReport(data=Problem.of(error))
    missing = custom_files.missing(config)
    return NodeReport(data=Problem.of(missing) if missing else None, fetched=fetched)


def prepare_nodes(
    storage: Storage, plan: Plan, data: StagedDataset, kind: str, notify: Callable[[str], None], interrupted: Callable[[], bool]
) -> dict[str, str]:
    """Prepares the data on every node with a `kind` of "CPU" or "GPU"; node id -> what it lacks, of the nodes to exclude.

    Raises:
        SetupError: a node does not have the same storage as the driver, or no node has the data or can run trials.
        InterruptedError: `interrupted` became true.
    """
    nodes = [node["NodeID"] for node in alive_nodes() if node["Resources"].get(kind)]
    probe = SharedStorageProbe.create(storage)
    limit = limit_s(plan.spec.stage_timeout, FUNCTION_S)
    processes = {node: WatchedProcess(limit, num_cpus=0, **only_on(node)) for node in nodes}
    try:
        config = plan.trials[0].config
        calls = {
            node: process.work.call.remote(node_report, node, probe, data, config, plan.custom_files)
            for node, process in processes.items()
        }
        reports = _collect_reports(calls, notify, interrupted, processes)
        without_storage = {node: report.storage for node, report in reports.items() if report.storage}
        wrote = [node for node, report in reports.items() if not (report.storage or report.error)]
        for node in probe.missing(wrote, interrupted):
            without_storage[node] = Problem(f"what it writes to storage {storage.root} does not reach the driver")
        if interrupted():
            raise InterruptedError
    finally:
        for process in processes.values():
            process.kill()
        probe.cleanup()
    if without_storage:
        lines = [f"node {address_of(node)}: {problem}" for node, problem in sorted(without_storage.items())]
        message = "\n".join([*lines, "every node must see the same storage"])
        raise SetupError(message, f"`{command('doctor')}` checks it", code="storage-not-shared")
    for node, report in reports.items():
        if report.fetched:
            notify(f"node {address_of(node)} does not have the data; it gets the decoded images through Ray")
    lacking = {
        node: problem for node, report in reports.items() if (problem := report.error or report.data or report.trial_error)
    }
    if len(lacking) == len(reports):  # an error that a trial meets on every node goes into its record
        lacking = {node: problem for node, report in reports.items() if (problem := report.error or report.data)}
    if lacking and len(lacking) == len(reports):
        node, problem = min(lacking.items())
        if not reports[node].data:
            raise SetupError(
                f"no node of the cluster can run trials (node {address_of(node)}: {problem})",
                f"`{command('doctor')}` lists the problems of all",
                code="nodes-unusable",
            )
        raise SetupError(
            f"no node of the cluster has the data (node {address_of(node)}: {problem})",
            "mount the folder of the data set on the nodes under the same path, or give one that they share with dataset.root",
            code="data-not-found",
        )
    return {node: str(problem) for node, problem in lacking.items()}


def _collect_reports(
    calls: dict[str, Any],
    notify: Callable[[str], None],
    interrupted: Callable[[], bool],
    processes: Mapping[str, WatchedProcess],
    timeout_s: float = NODE_TIMEOUT_S,
) -> dict[str, NodeReport]:
    """Every node's report; a lost node has none, and one that hangs or does not answer in time has an error.

    Args:
        calls: node -> the call in the process of that node.
    """
    started, is_announced = time.monotonic(), False
    reports: dict[str, NodeReport] = {}
    first: float | None = None
    waiting = list(calls.values())
    while waiting and (first is None or time.monotonic() - first < timeout_s):
        answered, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=0.5)
        if interrupted():
            raise InterruptedError
        for node in [node for node, answer in calls.items() if answer in waiting]:
            try:
                processes[node].look()
            except HungProcessError as error:
                reports[node] = _hung(error)
                waiting.remove(calls[node])
        if (answered or reports) and first is None:
            first = time.monotonic()
        if waiting and not is_announced and time.monotonic() - started > WAIT_MESSAGE_S:
            is_announced = True
            late = ", ".join(address_of(node) for node, answer in calls.items() if answer in waiting)
            notify(f"waiting for nodes that check the storage and prepare the data: {late}")
    alive = {node["NodeID"] for node in alive_nodes()}
    for node, answer in calls.items():
        if node in reports:
            continue
        if answer in waiting:
            late = f"it has not answered {timeout_s:.0f} s after the first node"
            reports[node] = NodeReport(error=Problem(late, HANG_HINT))
            continue
        try:
            reports[node] = processes[node].result(answer)
        except HungProcessError as error:
            reports[node] = _hung(error)
        except ray.exceptions.RayError as error:
            if node in alive:
                reports[node] = NodeReport(error=Problem(f"it cannot run drive-sweep: {reason_of(error)}"))
            else:
                notify(f"node {address_of(node)} was lost while it checked the storage and the data")
    return reports


def _hung(error: HungProcessError) -> NodeReport:
    return NodeReport(error=Problem(f"its check did not end, got {error}", HANG_HINT))
