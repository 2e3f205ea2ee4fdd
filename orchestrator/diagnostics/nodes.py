"""What a cluster's nodes are like, each asked itself, all at the same time."""

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
from orchestrator.cluster.node_checks import NodeReport, files_report
from orchestrator.cluster.node_info import NodeInfo, local_node_info
from orchestrator.cluster.remote_call import call_on, reason_of
from orchestrator.cluster.shared_storage_probe import SharedStorageProbe
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


@dataclass(frozen=True, kw_only=True)
class NodeAnswer:
    """What one node found; the problem with its storage is empty where there is none."""

    facts: NodeInfo
    storage: str
    files: NodeReport


def cluster_checks(
    address: str | None, storage: Storage | None, target: TrackingTarget | None, plan: Plan | None
) -> Iterator[Check]:
    try:
        with ray_environment(CREDENTIALS), connect_to_cluster(address):
            yield from _nodes(storage, target, plan)
    except SweepError as error:
        yield from_error("cluster", error)


def _nodes(storage: Storage | None, target: TrackingTarget | None, plan: Plan | None) -> Iterator[Check]:
    nodes = alive_nodes()
    working = [node for node in nodes if node["Resources"].get("CPU")]
    counts = f"{len(nodes)} nodes, {len(working)} of them run trials"
    yield Check(
        check="cluster",
        ok=bool(working),
        message=f"Ray {ray.__version__}: {counts}",
        hint="" if working else "start worker nodes, or wait for the autoscaler; a sweep waits too",
    )
    if target is not None and target.uri.startswith(SQLITE) and len(working) > 1:
        yield Check(
            check="tracking",
            ok=False,
            message=f"tracking {target.uri} is a SQLite file, which only the driver's host can use, and not over NFS",
            hint="start a tracking server and give it with --tracking-uri, so that others can look at the sweep too",
        )
    probe = None
    if storage is not None:
        try:
            probe = SharedStorageProbe.create(storage)
        except StorageError as error:
            yield from_error("storage", error)
    wanted = None if plan is None else (planned_data(plan, local_ray=False), plan.trials[0].config, plan.custom_files)
    try:
        begun = time.time()
        asked = {node["NodeID"]: call_on(node["NodeID"], node_answer, node["NodeID"], probe, wanted) for node in working}
        ours = local_node_info(with_gpus=False)
        deadline = time.monotonic() + NODE_TIMEOUT_S
        for node in working:
            name = f"node {node['NodeManagerAddress']}"
            try:
                answer = ray.get(asked[node["NodeID"]], timeout=max(0.0, deadline - time.monotonic()))
            except ray.exceptions.GetTimeoutError:
                hint = "look whether its storage or its data hang, or take it out of the cluster"
                yield Check(check="node", ok=False, message=f"{name} does not answer within {NODE_TIMEOUT_S:.0f} s", hint=hint)
                continue
            except ray.exceptions.RayError as error:
                yield _unanswered(name, error)
                continue
            yield from _node(name, node, answer, ours, begun, storage, probe, plan)
    finally:
        if probe is not None:
            with suppress(StorageError):
                probe.cleanup()


def node_answer(
    name: str, probe: SharedStorageProbe | None, wanted: tuple[StagedDataset, TrialConfig, CustomFiles] | None
) -> NodeAnswer:
    """All that is asked of a node; runs there."""
    facts = local_node_info(with_gpus=True)
    storage = probe.check(name) if probe else ""
    return NodeAnswer(facts=facts, storage=storage, files=files_report(*wanted) if wanted else NodeReport())


def _unanswered(name: str, error: Exception) -> Check:
    reason = reason_of(error)
    hint = "look at the node's Ray logs"
    if "No module named" in reason:
        hint = "install drive-sweep and its packages there, in the Python that Ray runs with"
    return Check(check="node", ok=False, message=f"{name} cannot run our code: {reason}", hint=hint)


def _node(
    name: str,
    node: dict[str, Any],
    answer: NodeAnswer,
    ours: NodeInfo,
    begun: float,
    storage: Storage | None,
    probe: SharedStorageProbe | None,
    plan: Plan | None,
) -> Iterator[Check]:
    if storage is not None and probe is not None:
        yield from_problem(
            "storage", name, answer.storage or _missing_problem(probe, node["NodeID"]), f"shares storage {storage.root}"
        )
    if plan is not None:
        well = "gets the decoded images through Ray" if answer.files.fetched else f"has the same {plan.spec.dataset.name}"
        yield from_problem("data", name, answer.files.data, well)
    before, after = begun - answer.facts.clock, answer.facts.clock - time.time()
    skew = max(before, after, 0.0)
    yield Check(
        check="clock",
        ok=skew <= MAX_CLOCK_SKEW_S,
        message=f"{name}: its clock is {skew:.0f} s off" if skew > MAX_CLOCK_SKEW_S else f"{name}: its clock agrees",
        hint="" if skew <= MAX_CLOCK_SKEW_S else "synchronise clocks (NTP); a driver that seems silent for 30 s counts as dead",
    )
    yield from machine_checks(name, answer.facts, ours, int(node["Resources"].get("GPU", 0)))


def _missing_problem(probe: SharedStorageProbe, node: str) -> str:
    """Why this machine does not see what a node wrote; empty if it does."""
    try:
        unseen = probe.missing([node])
    except StorageError as error:
        return str(error)
    root = probe.storage.root
    return f"what it writes to storage {root} does not reach this machine; mount the same folder" if unseen else ""
