"""What every node of a cluster must have before trials run there, asked on the nodes themselves: the storage and the data.

The driver writes a file to the storage and the nodes read it; each node writes one and the driver reads that. Nodes that lack
the data get the decoded images from the driver's node, if these are small.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.cluster.capacity import address_of, living_nodes
from orchestrator.command_line import command
from orchestrator.errors import SetupError
from orchestrator.planning.plan import Plan
from orchestrator.storage.base import Storage
from trainables.config.trial import TrialConfig
from trainables.custom.code import OwnFiles
from trainables.data import datasets
from trainables.data.staging import PlannedData
from trainables.errors import DataError, MisplacedError, StorageError, TrialError

SHIPPED_BYTES = 256 << 20  # CIFAR decoded takes 176 MiB; larger sets would push other objects out of a node's object store
SIGHT_S = 5.0  # for a file of another host to come into sight: NFS remembers for 3 s what a folder holds
LATE_S = 150.0  # for other nodes, once the first one has its data decoded; on a dead NFS mount a process waits for ever
FOLDER = "doctor"


@dataclass(frozen=True, kw_only=True)
class NodeReport:
    """What a node lacks; empty texts where all is well.

    Attributes:
        broken: the questions could not be answered there.
        trial: why a trial fails there; on other nodes it may not.
        shipped: the node has no data of its own and was given the decoded images.
    """

    storage: str = ""
    data: str = ""
    broken: str = ""
    trial: str = ""
    shipped: bool = False


def call_on(node_id: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Reference to the answer of a call on that node; it takes no CPU from trials."""
    strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=strategy)(function).remote(*arguments)


# The storage


@dataclass(frozen=True, kw_only=True)
class SharedFolder:
    """Files in the storage for one round of questions: one that the driver wrote, and one of every node."""

    storage: Storage
    round: str
    content: bytes

    @staticmethod
    def laid(storage: Storage) -> SharedFolder:
        """With the driver's file in it. Raises StorageError if the storage cannot be written."""
        folder = SharedFolder(storage=storage, round=secrets.token_hex(8), content=secrets.token_bytes(64))
        storage.write(folder.file("driver"), folder.content)
        return folder

    def file(self, writer: str) -> str:
        return f"{FOLDER}/{self.round}-{writer}"

    def problem_here(self, own_name: str) -> str:
        """Why this process cannot use the storage as the driver does; empty if it can. Leaves a file of its own."""
        root = self.storage.root
        try:
            read = self._sighted("driver")
            if read is None:
                return f"storage {root} is another folder there: it has not the file that the driver wrote; mount the same one"
            if read != self.content:
                return f"storage {root} gives other content than the driver wrote; mount the same folder"
            self.storage.write(self.file(own_name), self.content)
        except StorageError as error:
            return f"{str(error).partition('; ')[0]}; let trials read and write there, or take the node out of the cluster"
        return ""

    def unseen(self, names: Iterable[str], interrupted: Callable[[], bool] = lambda: False) -> set[str]:
        """Those under whose name the driver does not find what a process left; all are looked for at the same time."""
        deadline = time.monotonic() + SIGHT_S
        left = set(names)
        while left := {name for name in left if self.storage.read(self.file(name)) != self.content}:
            if time.monotonic() > deadline or interrupted():
                break
            time.sleep(0.2)
        return left

    def removed(self) -> None:
        for name in self.storage.names(FOLDER):
            if name.startswith(self.round):
                self.storage.remove(f"{FOLDER}/{name}")

    def _sighted(self, name: str) -> bytes | None:
        deadline = time.monotonic() + SIGHT_S
        while (content := self.storage.read(self.file(name))) is None and time.monotonic() < deadline:
            time.sleep(0.2)
        return content


# The data


class Home:
    """An actor on the driver's node: the decoded data set as one object of Ray's store, made when it is first asked for."""

    def __init__(self, source: datasets.Source, config: TrialConfig, own: OwnFiles) -> None:
        self.source, self.config, self.own = source, config, own
        self.kept: list[Any] = []

    def decoded(self) -> list[Any]:
        """The reference, in a list, so that it is not resolved on the way. Raises DataError if the data set is not shipped."""
        if not self.kept:
            self.own.activate(self.config)
            side, too_large = self.config.dataset.side, "it is too large to be shipped through Ray"
            if side and len(datasets.files(self.source)) * 3 * side * side > SHIPPED_BYTES:
                raise DataError(too_large)
            file = datasets.decoded_file(self.source)
            if file.stat().st_size > SHIPPED_BYTES:
                raise DataError(too_large)
            self.kept = [ray.put(file.read_bytes())]
        return self.kept


@dataclass(frozen=True, kw_only=True)
class Shipment:
    """Brings the decoded data set to whoever calls it (`PlannedData.ship`)."""

    home: Any

    def __call__(self) -> bytes:
        try:
            return bytes(ray.get(ray.get(self.home.decoded.remote())[0]))
        except ray.exceptions.RayTaskError as error:
            raise DataError(str(error.cause)) from error
        except ray.exceptions.RayError as error:
            raise DataError(f"the driver's node could not ship it: {error}") from error


def planned_data(plan: Plan, own_cluster: bool) -> PlannedData:
    """The plan's data set for any node; on a cluster with a way to nodes that lack it."""
    source = plan.source
    streamed = source.name in datasets.STREAMED
    ship = None
    if not (own_cluster or streamed or source.name == "digits"):
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor = ray.remote(num_cpus=0, scheduling_strategy=here)(Home)
        ship = Shipment(home=actor.remote(source, plan.trials[0].config, plan.own))
    signature = None if streamed else datasets.signature(source)
    return PlannedData(source=source, digest=plan.data_digest, signature=signature, ship=ship)


# Both, before the first trial


def report_here(name: str, folder: SharedFolder, data: PlannedData, config: TrialConfig, own: OwnFiles) -> NodeReport:
    """What this node lacks; its data is decoded by then."""
    if problem := folder.problem_here(name):
        return NodeReport(storage=problem)
    report = files_here(data, config, own)
    if report.data:
        return report
    try:
        own.activate(config)
        data.prepare()
    except MisplacedError as error:
        return NodeReport(data=str(error))
    except TrialError as error:
        return NodeReport(trial=str(error))
    return report


def files_here(data: PlannedData, config: TrialConfig, own: OwnFiles) -> NodeReport:
    """What this node lacks of the data and of the trial's own files; decodes nothing."""
    try:
        shipped = data.here().decoded is not None
    except MisplacedError as error:
        return NodeReport(data=str(error))
    return NodeReport(data=own.missing(config), shipped=shipped)


def prepare_nodes(
    storage: Storage, plan: Plan, data: PlannedData, kind: str, tell: Callable[[str], None], interrupted: Callable[[], bool]
) -> dict[str, str]:
    """Prepares the data on every node with a `kind` of "CPU" or "GPU"; node id -> what it lacks, of those to leave out.

    Raises:
        SetupError: a node does not have the same storage as the driver, or no node has the data or can run trials.
        InterruptedError: a signal came meanwhile.
    """
    nodes = [node for node in living_nodes() if node["Resources"].get(kind)]
    folder = SharedFolder.laid(storage)
    try:
        config = plan.trials[0].config
        asked = {
            node["NodeID"]: call_on(node["NodeID"], report_here, node["NodeID"], folder, data, config, plan.own)
            for node in nodes
        }
        reports = _answers(asked, tell, interrupted)
        unshared = {node: report.storage for node, report in reports.items() if report.storage}
        wrote = [node for node, report in reports.items() if not (report.storage or report.broken)]
        for node in folder.unseen(wrote, interrupted):
            unshared[node] = f"what it writes to storage {storage.root} does not reach the driver"
        if interrupted():
            raise InterruptedError
    finally:
        folder.removed()
    if unshared:
        lines = [f"node {address_of(node)}: {problem}" for node, problem in sorted(unshared.items())]
        raise SetupError("\n".join([*lines, f"every node must see the same storage; `{command('doctor')}` checks it"]))
    for node, report in reports.items():
        if report.shipped:
            tell(f"node {address_of(node)} has not the planned data; it gets the decoded images through Ray")
    lacking = {node: problem for node, report in reports.items() if (problem := report.broken or report.data or report.trial)}
    if len(lacking) == len(reports):  # what ails a trial on every node is told in its record
        lacking = {node: problem for node, report in reports.items() if (problem := report.broken or report.data)}
    if lacking and len(lacking) == len(reports):
        node, problem = min(lacking.items())
        if not reports[node].data:
            raise SetupError(
                f"no node of the cluster can run trials; node {address_of(node)}: {problem}; `{command('doctor')}` tells of all"
            )
        raise SetupError(
            f"no node of the cluster has the data; node {address_of(node)}: {problem}. Mount the folder of the data set on the "
            "nodes under the same path, or give one that they share with dataset.root"
        )
    return lacking


def _answers(asked: dict[str, Any], tell: Callable[[str], None], interrupted: Callable[[], bool]) -> dict[str, NodeReport]:
    """Every node's report; a node that is lost meanwhile has none, and one that does not answer in time counts as broken."""
    begun, told = time.monotonic(), False
    first: float | None = None
    waiting = list(asked.values())
    while waiting and (first is None or time.monotonic() - first < LATE_S):
        answered, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=0.5)
        if interrupted():
            raise InterruptedError
        if answered and first is None:
            first = time.monotonic()
        if waiting and not told and time.monotonic() - begun > 30:
            told = True
            late = ", ".join(address_of(node) for node, answer in asked.items() if answer in waiting)
            tell(f"waiting for nodes that look at the storage and prepare the data: {late}")
    reports = {}
    living = {node["NodeID"] for node in living_nodes()}
    for node, answer in asked.items():
        if answer in waiting:
            hangs = f"it has not answered {LATE_S:.0f} s after the first one; look whether its storage or its data hang"
            reports[node] = NodeReport(broken=hangs)
            continue
        try:
            reports[node] = ray.get(answer)
        except ray.exceptions.RayError as error:
            if node in living:
                reports[node] = NodeReport(broken=f"it cannot run our code: {reason_of(error)}")
            else:
                tell(f"node {address_of(node)} was lost while it looked at the storage and the data")
    return reports


def reason_of(error: Exception) -> str:
    """In one line why a call on a node failed."""
    lines = str(getattr(error, "cause", None) or error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
