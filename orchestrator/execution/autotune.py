"""Automatic choices that only a worker can answer: precision, compilation, and how many trials share a node or a GPU.

Packing is measured: probes of one trial run side by side, and the fewest that come near the best total throughput win.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.cluster.capacity import NO_CAPACITY, alive_nodes
from orchestrator.errors import SetupError
from orchestrator.execution.driver import Driver
from orchestrator.planning.plan import Plan
from orchestrator.planning.resolved_settings import (
    ResolvedSettings,
    choices_of,
    configured_gpu_share,
    leaves_precision_open,
    read_choices,
    valid_on_device,
    write_choices,
)
from orchestrator.preflight.networks import NetworkChecks
from orchestrator.spec.schema import Resources
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.local import node_cache
from trainables.config.keys import canonical
from trainables.data.staging import StagedDataset
from trainables.preflight.network_case import NetworkCase, NetworkReport, adjusted_runtime
from trainables.wording import shortened
from trainables.worker.probe import Probe, probe_hardware

MEASURE_S = 3.0
NEAR = 0.95  # of the best total throughput is as good as the best
MEMORY_SHARE = 0.9  # of a GPU that trials may fill together
MOST_PER_GPU = 16
WAIT_S = 0.5


class ProbeLostError(SetupError):
    """The process of a probe was lost, perhaps with its node."""


def resolve_settings(
    driver: Driver,
    plan: Plan,
    data: StagedDataset,
    without: Collection[str] = (),
    joined: bool = False,
    reports: Sequence[NetworkReport] = (),
) -> ResolvedSettings:
    """The sweep's choices: as the sweep file says, else as they were made before, else asked and measured; kept in its folder.

    Args:
        without: ids of nodes that cannot run trials.
        joined: the cluster is not our own Ray on this machine.
        reports: on networks that were examined before there were workers.

    Raises:
        SetupError: a GPU is asked for, and the cluster has none; or a probe failed.
        InterruptedError: a signal came while workers were asked.
    """
    resources = plan.spec.resources
    device = chosen_device(driver.folder, resources, joined)
    made = valid_on_device(device, read_choices(driver.folder))
    asks_precision = leaves_precision_open((trial.config for trial in plan.trials), made)
    asks_compile = "compile" not in made and resources.compile
    written = configured_gpu_share(resources.gpus_per_trial, device)
    checks = NetworkChecks(driver.folder, plan, device, None if joined else node_cache())
    checks.keep(reports, made.get("precision"), driver.announce)
    checks.recall(made.get("precision"), driver.announce)
    cases = checks.unanswered(made.get("precision"))
    if asks_precision or asks_compile or cases:
        answers, reports = _examined(driver, plan, data, made, asks_precision, asks_compile, written, cases)
        made = answers | made
        checks.keep(reports, made.get("precision"), driver.announce)
    adjustments = checks.adjustments(made.get("precision"), driver.announce)
    if written is None and "gpus_per_trial" not in made:
        share = partial(_tune_gpu_share, driver, plan, data, replace(choices_of(resources, made), adjustments=adjustments))
        made["gpus_per_trial"] = _on_largest_node(driver, share, "GPU", "CPU", without)
    if resources.cpus_per_trial == "auto" and "cpus_per_trial" not in made:
        having = "GPU" if device == "cuda" else "CPU"
        threads = partial(_tune_cpus, driver, plan, data, replace(choices_of(resources, made), adjustments=adjustments))
        made["cpus_per_trial"] = _on_largest_node(driver, threads, "CPU", having, without)
    write_choices(driver.folder, made)
    return replace(choices_of(resources, made), adjustments=adjustments)


def smallest_near_best(totals: dict[int, float]) -> int:
    """The smallest candidate whose total throughput comes near the best one."""
    best = max(totals.values())
    return min(candidate for candidate, total in totals.items() if total >= NEAR * best)


def chosen_device(folder: SweepFolder, resources: Resources, joined: bool) -> str:
    """cpu or cuda: as the sweep file says, else as this sweep ran before, else a GPU where there is one.

    Raises:
        SetupError: it is to be a GPU, and the cluster has none; one that was joined may still grow if max_concurrent is given.
    """
    chosen_before = read_choices(folder).get("device")
    gpus_there = ray.cluster_resources().get("GPU", 0)
    if resources.device != "auto":
        device = str(resources.device)
    else:
        device = chosen_before or ("cuda" if gpus_there or resources.gpus_per_trial else "cpu")
    if device == "cuda" and not gpus_there and not (joined and resources.max_concurrent):
        why = "this sweep ran on GPUs before" if chosen_before == "cuda" else "GPUs are asked for"
        raise SetupError(f"resources: {why}, but the cluster has none; set resources.device: cpu, or join a cluster with GPUs")
    return device


def _examined(
    driver: Driver,
    plan: Plan,
    data: StagedDataset,
    made: dict[str, Any],
    asks_precision: bool,
    wants_compile: bool,
    share: float | None,
    cases: list[NetworkCase],
) -> tuple[dict[str, Any], list[NetworkReport]]:
    """Answers of one worker, where the hardware is: precision, compilation if wanted, and the reports of the networks."""
    choices = choices_of(plan.spec.resources, made)
    needs = {"num_cpus": 1, "num_gpus": (share or 1.0) if choices.device == "cuda" else 0}
    runtime = replace(choices.runtime(plan.spec.resources), compile=False)
    rooms = [node["Resources"] for node in alive_nodes()]
    if not any(room.get("CPU") and room.get("GPU", 0) >= needs["num_gpus"] for room in rooms):
        driver.announce(NO_CAPACITY)
    asked = ray.remote(**needs)(probe_hardware)
    answer = _waited(
        driver,
        [
            asked.remote(
                choices.device, wants_compile, cases, data, plan.data_facts, runtime, plan.custom_files, made.get("precision")
            )
        ],
    )[0]
    answers: dict[str, Any] = {"precision": answer["precision"]} if asks_precision or wants_compile else {}
    if wants_compile:
        problem = answer["compile_problem"]
        answers |= {"compile": not problem, "compile_problem": problem}
        if problem:
            driver.announce(f"trials are not compiled, as resources.compile asks for: {problem}")
    return answers, answer.get("reports", [])


def _tune_gpu_share(driver: Driver, plan: Plan, data: StagedDataset, choices: ResolvedSettings, node: dict[str, Any]) -> float:
    """The share of a GPU at which trials side by side train the most images."""
    with _probes(driver, plan, data, choices, 1, {"num_cpus": 1, "num_gpus": 1}, node) as (measure, peak, probe):
        fits = max(1, min(MOST_PER_GPU, int(MEMORY_SHARE * _waited(driver, [probe.gpu_bytes.remote()])[0] // peak)))
        totals = {1: measure()}
    count = 2
    while count <= fits and totals[count // 2] >= NEAR * max(totals.values()):  # as long as it still pays
        needs = {"num_cpus": 0.01, "num_gpus": 1 / count}
        with _probes(driver, plan, data, choices, count, needs, node) as (measure, _, _):
            totals[count] = measure()
        count *= 2
    best = smallest_near_best(totals)
    driver.announce(f"{best} trials share a GPU: one takes {peak / 2**30:.1f} GiB; images/s side by side: {_told(totals)}")
    return 1 / best


def _tune_cpus(driver: Driver, plan: Plan, data: StagedDataset, choices: ResolvedSettings, node: dict[str, Any]) -> float:
    """The threads of a trial at which a full node trains the most images."""
    cpus = int(node["Resources"]["CPU"])
    totals: dict[int, float] = {}
    threads = 1
    while threads <= max(1, cpus):
        count = cpus // threads
        if choices.gpus_per_trial:
            count = min(count, int(node["Resources"]["GPU"] / choices.gpus_per_trial))
        needs = {"num_cpus": threads, "num_gpus": choices.gpus_per_trial}
        with _probes(driver, plan, data, replace(choices, cpus_per_trial=threads), count, needs, node) as (measure, _, _):
            totals[threads] = measure()
        threads *= 2
    best = smallest_near_best(totals)
    driver.announce(f"{best} CPUs per trial; images/s of a full node by CPUs per trial: {_told(totals)}")
    return float(best)


def _told(totals: dict[int, float]) -> str:
    return ", ".join(f"{candidate}: {total:,.0f}" for candidate, total in totals.items())


@contextmanager
def _probes(
    driver: Driver,
    plan: Plan,
    data: StagedDataset,
    choices: ResolvedSettings,
    count: int,
    needs: dict[str, float],
    node: dict[str, Any],
) -> Iterator[tuple[Callable[[], float], int, Any]]:
    """Probes of the sweep's largest trial on one node: a call that measures their total images/s, the memory of one, one."""
    largest = max((trial.config for trial in plan.trials), key=lambda config: config.training.batch_size)
    runtime = adjusted_runtime(choices.runtime(plan.spec.resources), largest, choices.adjustments)
    config = canonical(largest)
    actor = ray.remote(**needs, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))(Probe)
    probes = [actor.remote(config, data, runtime, plan.custom_files) for _ in range(count)]
    try:
        peak = max(_waited(driver, [probe.measure_peak_memory.remote() for probe in probes]))

        def measure() -> float:
            return float(sum(_waited(driver, [probe.images_per_second.remote(MEASURE_S) for probe in probes])))

        yield measure, peak, probes[0]
    finally:
        for probe in probes:
            ray.kill(probe)


def _on_largest_node(
    driver: Driver, measured: Callable[[dict[str, Any]], float], kind: str, having: str, without: Collection[str]
) -> float:
    """What is measured on the largest node; where a process of it is lost, most likely with the node, once more on another one.

    Raises:
        SetupError: it could not be measured.
    """
    node = _largest_node(kind, having, without)
    try:
        return measured(node)
    except ProbeLostError:
        without = {*without, node["NodeID"]}
        if not _nodes(kind, having, without):
            raise
    driver.announce(f"node {node['NodeManagerAddress']} lost a probe; measuring on another node")
    return measured(_largest_node(kind, having, without))


def _nodes(kind: str, having: str, without: Collection[str]) -> list[dict[str, Any]]:
    nodes = [node for node in alive_nodes() if node["Resources"].get(kind) and node["Resources"].get(having)]
    return [node for node in nodes if node["NodeID"] not in without]


def _largest_node(kind: str, having: str, without: Collection[str]) -> dict[str, Any]:
    """The node to measure on.

    Raises:
        SetupError: none is up, on a cluster that adds nodes on demand.
    """
    nodes = _nodes(kind, having, without)
    if not nodes:
        raise SetupError(
            f"no node with a {kind} is up to measure on; write resources.cpus_per_trial and resources.gpus_per_trial as numbers"
        )
    return max(nodes, key=lambda node: float(node["Resources"][kind]))


def _waited(driver: Driver, answers: list[Any]) -> list[Any]:
    """The answers, however long a free slot takes.

    Raises:
        InterruptedError: a signal came meanwhile.
        SetupError: one of them failed; ProbeLostError if its process was lost.
    """
    waited_s = 0.0
    while len(ray.wait(answers, num_returns=len(answers), timeout=WAIT_S)[0]) < len(answers):
        waited_s += WAIT_S
        if driver.signal is not None:
            raise InterruptedError
        if waited_s == 30:
            driver.screen.print("waiting for workers, to make the automatic choices there")
    try:
        return list(ray.get(answers))
    except ray.exceptions.RayError as error:
        reason = shortened(str(getattr(error, "cause", None) or error).strip().splitlines()[-1])
        kind = ProbeLostError if isinstance(error, ray.exceptions.RayActorError) else SetupError
        raise kind(
            f"an automatic choice could not be made, its probe failed: {reason}; write precision, resources.cpus_per_trial "
            "and resources.gpus_per_trial in the sweep file, or correct the trial"
        ) from error
