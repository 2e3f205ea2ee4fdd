"""What a sweep needs of the world, checked before it runs, each check by doing the thing; and repairs after a crash.

All checks run, also when the first one fails. On a cluster every node is asked itself. Reads: node_checks.py, node_facts.py,
tracking_checks.py. Read by: commands.py.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import ray

from orchestrator.cluster_watch import living_nodes
from orchestrator.errors import SweepError
from orchestrator.mlflow_client import SQLITE, TrackingTarget
from orchestrator.node_checks import SharedFolder, call_on, data_problem_here
from orchestrator.node_facts import NodeFacts, facts_here
from orchestrator.plan import Plan, make_plan
from orchestrator.projection import tracking_target
from orchestrator.ray_cluster import is_own, joined_cluster, ray_environment
from orchestrator.spec import SweepSpec, spec_from_resolved
from orchestrator.spec_fields import Tracking
from orchestrator.state import SweepFolder, driver_alive
from orchestrator.storage import Storage
from orchestrator.store import open_storage
from trainables import datasets
from trainables.failures import StorageError
from trainables.node_data import PlannedData

LEAST_FREE_BYTES = 2 << 30  # checkpoints of large networks side by side, and what Ray spills
LEAST_FREE_MEMORY = 0.1  # of a GPU; with less, somebody else computes on it
MOST_SKEW_S = 5.0  # a driver on another host counts as dead 30 s after its heartbeat
NODE_S = 150.0


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at: what was found, and what to do about it where it is not well."""

    check: str
    ok: bool
    message: str
    way_out: str = ""


@dataclass(frozen=True, kw_only=True)
class NodeAnswer:
    """What one node found; texts are problems, empty where there is none."""

    facts: NodeFacts
    storage: str
    data: str


def examine(spec: SweepSpec | None, storage_uri: str, target: TrackingTarget | None, address: str | None) -> Iterator[Check]:
    """All checks, in the order in which they are told.

    Args:
        spec: the sweep that is to run; without it nothing is known of its data.
        target: where its runs go; None leaves out the tracking server, since there is none before the first sweep.
    """
    storage, found = _checked_storage(storage_uri)
    yield from found
    if target is not None:
        yield from _tracking(target)
    plan: Plan | None = None
    if spec is not None and storage is not None:
        plan, check = _planned(spec, storage)
        yield check
    if is_own(address):
        yield from _facts("this machine", facts_here(ask_gpus=True), facts_here(ask_gpus=False), gpus_counted=0)
    else:
        yield from _cluster(address, storage, target, plan)
    if storage is not None:
        yield from _orphans(storage)


def tracking_of(spec: SweepSpec | None, storage_uri: str, uri: str | None) -> TrackingTarget | None:
    """Where the runs of the sweep go; without a sweep the URI that was given, or the database that a storage has already."""
    storage = open_storage(storage_uri)
    if spec is not None:
        return tracking_target(spec, storage)
    if uri is None:
        database = storage.folder and storage.folder / "mlflow.db"
        if database is None or not database.exists():
            return None
        uri = f"{SQLITE}{database}"
    return TrackingTarget(uri=uri, experiment=Tracking().experiment, artifact_root=None)


def attempted(check: str, action: Callable[[], str], way_out: str = "") -> Check:
    """What an action tells, or how it failed."""
    try:
        return Check(check=check, ok=True, message=action())
    except (SweepError, StorageError) as error:
        message, _, rest = str(error).partition("; ")
        return Check(check=check, ok=False, message=message, way_out=rest or way_out)


# Storage, tracking and data, as this machine sees them


def _checked_storage(uri: str) -> tuple[Storage | None, list[Check]]:
    opened: list[Storage] = []

    def write() -> str:
        storage = open_storage(uri, create=True)
        folder = SharedFolder.laid(storage)
        folder.removed()
        opened.append(storage)
        return f"{storage.root} can be read and written"

    checks = [attempted("storage", write, "give a folder that can be written with --storage")]
    storage = opened[0] if opened else None
    if storage is not None and storage.folder is not None:
        checks.append(_free("disk", f"storage {storage.root}", shutil.disk_usage(storage.folder).free))
    return storage, checks


def _free(check: str, place: str, free: int) -> Check:
    least = LEAST_FREE_BYTES / 2**30
    message, ok = f"{place} has {free / 2**30:.1f} GiB free", free >= LEAST_FREE_BYTES
    return Check(
        check=check,
        ok=ok,
        message=message if ok else f"{message}, a sweep needs {least:.0f} GiB",
        way_out="" if ok else "make room there, or use another folder",
    )


def _tracking(target: TrackingTarget) -> Iterator[Check]:
    from orchestrator.tracking_checks import check_artifacts, check_server

    server = attempted("tracking", lambda: check_server(target))
    yield server
    if server.ok:
        yield attempted("artifacts", lambda: check_artifacts(target), "let the tracking server write its artifacts")


def _planned(spec: SweepSpec, storage: Storage) -> tuple[Plan | None, Check]:
    plans: list[Plan] = []

    def read() -> str:
        plans.append(make_plan(spec, storage, hash_data=True))
        return f"{spec.dataset.name} is here, digest {plans[0].data_digest}; {len(plans[0].trials)} trials are planned"

    check = attempted("data", read)
    return (plans[0] if plans else None), check


def _orphans(storage: Storage) -> Iterator[Check]:
    """Ends the runs of sweeps whose driver is gone; of those that ended in an orderly way MLflow knows everything."""
    from orchestrator.tracking_checks import end_orphans

    for name in storage.names("sweeps"):
        folder = SweepFolder(storage, name)
        state, record = folder.read_state(), storage.read_json(folder.file("spec.json"))
        if state is None or record is None or driver_alive(state.driver) or not (state.driver or state.tracking_pending):
            continue
        target = tracking_target(spec_from_resolved(record), storage)

        def end(target: TrackingTarget = target, name: str = name) -> str:
            ended = end_orphans(target, name)
            if not ended:
                return f"sweep {name!r}: its driver is gone, no run of it is left RUNNING"
            shown = ", ".join(ended[:5]) + (f" and {len(ended) - 5} more" if len(ended) > 5 else "")
            return f"sweep {name!r}: its driver is gone; runs that were RUNNING are KILLED now: {shown}"

        yield attempted("orphans", end)


# A cluster


def _cluster(address: str | None, storage: Storage | None, target: TrackingTarget | None, plan: Plan | None) -> Iterator[Check]:
    try:
        with ray_environment(), joined_cluster(address):
            yield from _nodes(storage, target, plan)
    except SweepError as error:
        message, _, way_out = str(error).partition("; ")
        yield Check(check="cluster", ok=False, message=message, way_out=way_out)


def _nodes(storage: Storage | None, target: TrackingTarget | None, plan: Plan | None) -> Iterator[Check]:
    nodes = living_nodes()
    working = [node for node in nodes if node["Resources"].get("CPU")]
    counts = f"{len(nodes)} nodes, {len(working)} of them run trials"
    yield Check(
        check="cluster",
        ok=bool(working),
        message=f"Ray {ray.__version__}: {counts}",
        way_out="" if working else "start worker nodes, or wait for the autoscaler; a sweep waits too",
    )
    if target is not None and target.uri.startswith(SQLITE) and len(working) > 1:
        yield Check(
            check="tracking",
            ok=False,
            message=f"tracking {target.uri} is a SQLite file, which only the driver's host can use, and not over NFS",
            way_out="start a tracking server and give it with --tracking-uri, so that others can look at the sweep too",
        )
    folder = SharedFolder.laid(storage) if storage is not None else None
    data = None
    if plan is not None:
        source = plan.spec.source()
        signature = None if source.name in datasets.STREAMED else datasets.signature(source)
        data = PlannedData(source=source, digest=plan.data_digest, signature=signature)
    try:
        begun = time.time()
        asked = {node["NodeID"]: call_on(node["NodeID"], node_answer, node["NodeID"], folder, data, plan) for node in working}
        ours = facts_here(ask_gpus=False)
        deadline = time.monotonic() + NODE_S
        for node in working:
            name = f"node {node['NodeManagerAddress']}"
            try:
                answer = ray.get(asked[node["NodeID"]], timeout=max(0.0, deadline - time.monotonic()))
            except ray.exceptions.GetTimeoutError:
                way_out = "look whether its storage or its data hang, or take it out of the cluster"
                yield Check(check="node", ok=False, message=f"{name} does not answer within {NODE_S:.0f} s", way_out=way_out)
                continue
            except ray.exceptions.RayError as error:
                yield _unanswered(name, error)
                continue
            yield from _node(name, node, answer, ours, begun, storage, folder, plan)
    finally:
        if folder is not None:
            folder.removed()


def node_answer(name: str, folder: SharedFolder | None, data: PlannedData | None, plan: Plan | None) -> NodeAnswer:
    """All that is asked of a node; runs there."""
    facts = facts_here(ask_gpus=True)
    storage = folder.problem_here(name) if folder else ""
    missing = data_problem_here(data, plan.trials[0].config, plan.own) if data and plan else ""
    return NodeAnswer(facts=facts, storage=storage, data=missing)


def _unanswered(name: str, error: Exception) -> Check:
    reason = str(getattr(error, "cause", None) or error).strip().splitlines()[-1]
    way_out = "look at the node's Ray logs"
    if "No module named" in reason:
        way_out = "install drive-sweep and its packages there, in the Python that Ray runs with"
    return Check(check="node", ok=False, message=f"{name} cannot run our code: {reason}", way_out=way_out)


def _node(
    name: str,
    node: dict[str, Any],
    answer: NodeAnswer,
    ours: NodeFacts,
    begun: float,
    storage: Storage | None,
    folder: SharedFolder | None,
    plan: Plan | None,
) -> Iterator[Check]:
    if storage is not None and folder is not None:
        problem = answer.storage
        if not problem and folder.unseen(node["NodeID"]):
            problem = f"what it writes to storage {storage.root} does not reach this machine; mount the same folder"
        yield _told("storage", name, problem, f"shares storage {storage.root}")
    if plan is not None:
        yield _told("data", name, answer.data, f"has the same {plan.spec.dataset.name}")
    before, after = begun - answer.facts.clock, answer.facts.clock - time.time()
    skew = max(before, after, 0.0)
    yield Check(
        check="clock",
        ok=skew <= MOST_SKEW_S,
        message=f"{name}: its clock is {skew:.0f} s off" if skew > MOST_SKEW_S else f"{name}: its clock agrees",
        way_out="" if skew <= MOST_SKEW_S else "synchronise clocks (NTP); a driver that seems silent for 30 s counts as dead",
    )
    yield from _facts(name, answer.facts, ours, int(node["Resources"].get("GPU", 0)))


def _told(check: str, name: str, problem: str, well: str) -> Check:
    message, _, way_out = problem.partition("; ")
    return Check(check=check, ok=not problem, message=f"{name}: {message or well}", way_out=way_out)


def _facts(name: str, facts: NodeFacts, ours: NodeFacts, gpus_counted: int) -> Iterator[Check]:
    """The checks of a machine's own facts, beside those of the driver's machine."""
    told = facts.versions.items()
    other = [f"{package} {found} (here {ours.versions[package]})" for package, found in told if found != ours.versions[package]]
    yield Check(
        check="versions",
        ok=not other,
        message=f"{name}: {', '.join(other or [' '.join(one) for one in told])}",
        way_out="install the same versions on every node; other ones compute other numbers" if other else "",
    )
    for folder, free in facts.free_bytes.items():
        yield _free("disk", f"{name}: {folder}", free)
    if facts.gpu_problem:
        way_out = "repair PyTorch or the driver there"
        yield Check(check="gpu", ok=False, message=f"{name}: GPUs cannot be asked: {facts.gpu_problem}", way_out=way_out)
    elif gpus_counted > len(facts.gpus):
        yield Check(
            check="gpu",
            ok=False,
            message=f"{name}: Ray counts {gpus_counted} GPUs, CUDA sees {len(facts.gpus)}",
            way_out="start the node with the true --num-gpus, or repair its driver; trials on GPUs would fail there",
        )
    for gpu in facts.gpus:
        yield _gpu(name, gpu)


def _gpu(name: str, gpu: dict[str, Any]) -> Check:
    if "problem" in gpu:
        way_out = "take it out of the cluster (CUDA_VISIBLE_DEVICES at `ray start`), or repair it"
        return Check(check="gpu", ok=False, message=f"{name}: GPU {gpu['index']} is broken: {gpu['problem']}", way_out=way_out)
    free, total = gpu["free"] / 2**30, gpu["total"] / 2**30
    ok = free >= LEAST_FREE_MEMORY * total
    return Check(
        check="gpu",
        ok=ok,
        message=f"{name}: GPU {gpu['index']}, {gpu['name']}: {free:.1f} of {total:.1f} GiB free",
        way_out="" if ok else "end what computes there, or leave this GPU out",
    )
