"""The checks of a cluster's nodes, which run on all of them at the same time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray

from orchestrator.cluster.capacity import alive_nodes
from orchestrator.cluster.connection import connect_to_cluster, ray_environment
from orchestrator.cluster.data_shipping import planned_data
from orchestrator.cluster.node_checks import HANG_HINT, NodeReport, files_report
from orchestrator.cluster.node_info import NodeInfo, Problem, local_node_info
from orchestrator.cluster.remote_call import call_on, reason_of
from orchestrator.cluster.shared_storage_probe import MOUNT_HINT, SharedStorageProbe
from orchestrator.diagnostics.checks import Check, from_error, from_problem, machine_checks
from orchestrator.errors import SweepError
from orchestrator.planning.plan import Plan
from orchestrator.storage.base import Storage
from orchestrator.tracking.client import CREDENTIALS, SQLITE, TrackingTarget
from trainables.config.trial import TrialConfig
from trainables.custom.files import CustomFiles
from trainables.data.staging import StagedDataset
from trainables.errors import StorageError

MAX_CLOCK_SKEW_S = 5.0  # a driver on another host counts as dead 30 s after its heartbeat
NODE_TIMEOUT_S = 150.0
DatasetPlan = tuple[StagedDataset, TrialConfig, CustomFiles]  # what a node must have for the sweep


@dataclass(frozen=True, kw_only=True)
class NodeAnswer:
    """What one node reports; `storage` is why it cannot use the storage."""

    info: NodeInfo
    storage: Problem | None
    files: NodeReport


def cluster_checks(
    address: str | None, storage: Storage | None, target: TrackingTarget | None, plan: Plan | None
) -> Iterator[Check]:
    try:
        with ray_environment(CREDENTIALS), connect_to_cluster(address):
            yield from _check_cluster(storage, target, plan)
    except SweepError as error:
        yield from_error("cluster", error)


def _check_cluster(storage: Storage | None, target: TrackingTarget | None, plan: Plan | None) -> Iterator[Check]:
    nodes = alive_nodes()
    workers = [node for node in nodes if node["Resources"].get("CPU")]
    yield Check(
        name="cluster",
        ok=bool(workers),
        message=f"Ray {ray.__version__}: {len(nodes)} nodes, {len(workers)} of them run trials",
        hint="" if workers else "start worker nodes, or wait for the autoscaler; a sweep waits too",
    )
    if target is not None and target.uri.startswith(SQLITE) and len(workers) > 1:
        yield Check(
            name="tracking",
            ok=False,
            message=f"tracking {target.uri} is a SQLite file, which only the driver's host can use, and not over NFS",
            hint="start a tracking server and give it with --tracking-uri, so that others can see the sweep too",
        )
    probe = None
    if storage is not None:
        try:
            probe = SharedStorageProbe.create(storage)
        except StorageError as error:
            yield from_error("storage", error)
    try:
        yield from _check_nodes(workers, probe, plan)
    finally:
        if probe is not None:
            with suppress(StorageError):
                probe.cleanup()


def _check_nodes(nodes: list[dict[str, Any]], probe: SharedStorageProbe | None, plan: Plan | None) -> Iterator[Check]:
    data = None if plan is None else (planned_data(plan, local_ray=False), plan.trials[0].config, plan.custom_files)
    started = time.time()
    calls = {node["NodeID"]: call_on(node["NodeID"], node_answer, node["NodeID"], probe, data) for node in nodes}
    driver = local_node_info(with_gpus=False)
    deadline = time.monotonic() + NODE_TIMEOUT_S
    for node in nodes:
        name = f"node {node['NodeManagerAddress']}"
        try:
            answer = ray.get(calls[node["NodeID"]], timeout=max(0.0, deadline - time.monotonic()))
        except ray.exceptions.GetTimeoutError:
            hint = f"{HANG_HINT}, or take it out of the cluster"
            yield Check(name="node", ok=False, message=f"{name} does not answer within {NODE_TIMEOUT_S:.0f} s", hint=hint)
            continue
        except ray.exceptions.RayError as error:
            yield _failed_call(name, error)
            continue
        if probe is not None:
            storage_problem = answer.storage or _missing_problem(probe, node["NodeID"])
            yield from_problem("storage", name, storage_problem, f"shares storage {probe.storage.root}")
        if plan is not None:
            ok = "gets the decoded images through Ray" if answer.files.fetched else f"has the same {plan.spec.dataset.name}"
            yield from_problem("data", name, answer.files.data, ok)
        yield _check_clock(name, answer.info.clock, started)
        yield from machine_checks(name, answer.info, driver, int(node["Resources"].get("GPU", 0)))


def node_answer(name: str, probe: SharedStorageProbe | None, data: DatasetPlan | None) -> NodeAnswer:
    """The report of the node on which this runs."""
    info = local_node_info(with_gpus=True)
    storage = probe.check(name) if probe else None
    return NodeAnswer(info=info, storage=storage, files=files_report(*data) if data else NodeReport())


def _failed_call(name: str, error: Exception) -> Check:
    reason = reason_of(error)
    hint = "read the node's Ray logs"
    if "No module named" in reason:
        hint = "install drive-sweep and its packages there, in the Python that Ray runs with"
    return Check(name="node", ok=False, message=f"{name} cannot run drive-sweep: {reason}", hint=hint)


def _check_clock(name: str, clock: float, started: float) -> Check:
    """Compares the time at which a node answered with those before and after on this machine."""
    skew = max(started - clock, clock - time.time(), 0.0)
    if skew <= MAX_CLOCK_SKEW_S:
        return Check(name="clock", ok=True, message=f"{name}: its clock agrees")
    hint = "synchronise clocks (NTP); a driver that seems silent for 30 s counts as dead"
    return Check(name="clock", ok=False, message=f"{name}: its clock is {skew:.0f} s off", hint=hint)


def _missing_problem(probe: SharedStorageProbe, node: str) -> Problem | None:
    """Why this machine does not see what a node wrote; None if it does."""
    try:
        missing = probe.missing([node])
    except StorageError as error:
        return Problem.of(error)
    if not missing:
        return None
    return Problem(f"what it writes to storage {probe.storage.root} does not reach this machine", MOUNT_HINT)
