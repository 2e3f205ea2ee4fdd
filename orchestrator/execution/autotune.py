"""Autotunes the settings that need a worker: precision, compilation, and how many trials share a node or a GPU.

Probes of one trial run side by side, and the smallest number near the best total throughput wins.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import ray

from orchestrator.cluster.capacity import NO_CAPACITY, alive_nodes
from orchestrator.cluster.remote_call import only_on
from orchestrator.cluster.watched_process import HungProcessError, WatchedProcess
from orchestrator.errors import SetupError
from orchestrator.execution.driver import Driver
from orchestrator.planning.plan import Plan
from orchestrator.planning.resolved_settings import (
    ResolvedSettings,
    configured_gpu_share,
    leaves_precision_open,
    merge_settings,
    read_resolved,
    valid_on_device,
    write_resolved,
)
from orchestrator.preflight.networks import NetworkChecks
from orchestrator.process.patience import HINT, limit_s
from orchestrator.spec.schema import Resources
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.local import node_cache
from trainables.config.keys import canonical
from trainables.data.staging import StagedDataset
from trainables.preflight.network_case import NetworkCase, NetworkReport, adjusted_runtime
from trainables.wording import shortened
from trainables.worker.probe import Probe, probe_hardware

MEASURE_DURATION_S = 3.0
NEAR_BEST = 0.95  # a total throughput above this share of the best counts as the best
MEMORY_SHARE = 0.9  # of a GPU's memory that trials may use together
MAX_TRIALS_PER_GPU = 16
WAIT_INTERVAL_S = 0.5


class ProbeLostError(SetupError):
    """The process of a probe was lost, perhaps with its node."""


def resolve_settings(
    driver: Driver,
    plan: Plan,
    data: StagedDataset,
    excluded: Collection[str] = (),
    joined: bool = False,
    reports: Sequence[NetworkReport] = (),
) -> ResolvedSettings:
    """The sweep's settings: from the sweep file, else cached in the sweep's folder, else measured now and cached.

    Args:
        excluded: ids of nodes that cannot run trials.
        joined: the cluster is not a local Ray.
        reports: of the networks that were checked while Ray started.

    Raises:
        SetupError: a GPU is requested, and the cluster has none; or a probe failed.
        InterruptedError: a signal came while workers were probed.
    """
    resources = plan.spec.resources
    device = chosen_device(driver.folder, resources, joined)
    cached = valid_on_device(device, read_resolved(driver.folder))
    asks_precision = leaves_precision_open((trial.config for trial in plan.trials), cached)
    asks_compile = "compile" not in cached and resources.compile
    gpu_share = configured_gpu_share(resources.gpus_per_trial, device)
    checks = NetworkChecks(driver.folder, plan, device, None if joined else node_cache())
    checks.add(reports, cached.get("precision"), driver.announce)
    checks.load_cached(cached.get("precision"), driver.announce)
    cases = checks.unanswered(cached.get("precision"))
    if asks_precision or asks_compile or cases:
        answers, reports = _ask_worker(driver, plan, data, cached, asks_precision, asks_compile, gpu_share, cases)
        cached = answers | cached
        checks.add(reports, cached.get("precision"), driver.announce)
    adjustments = checks.adjustments(cached.get("precision"), driver.announce)

    def settings() -> ResolvedSettings:
        return replace(merge_settings(resources, cached), adjustments=adjustments)

    if gpu_share is None and "gpus_per_trial" not in cached:
        share = partial(_tune_gpu_share, driver, plan, data, settings())
        cached["gpus_per_trial"] = _on_largest_node(driver, share, "GPU", "CPU", excluded)
    if resources.cpus_per_trial == "auto" and "cpus_per_trial" not in cached:
        other_resource = "GPU" if device == "cuda" else "CPU"
        cpus = partial(_tune_cpus, driver, plan, data, settings())
        cached["cpus_per_trial"] = _on_largest_node(driver, cpus, "CPU", other_resource, excluded)
    write_resolved(driver.folder, cached)
    return settings()


def smallest_near_best(totals: dict[int, float]) -> int:
    """The smallest candidate whose total throughput comes near the best one."""
    best = max(totals.values())
    return min(candidate for candidate, total in totals.items() if total >= NEAR_BEST * best)


def chosen_device(folder: SweepFolder, resources: Resources, joined: bool) -> str:
    """cpu or cuda: from the sweep file, else as in this sweep's last run, else cuda if there is a GPU.

    Raises:
        SetupError: a GPU is needed, and the cluster has none; a remote one may still grow if max_concurrent is given.
    """
    chosen_before = read_resolved(folder).get("device")
    num_gpus = ray.cluster_resources().get("GPU", 0)
    if resources.required_device != "auto":
        device = str(resources.required_device)
    else:
        device = chosen_before or ("cuda" if num_gpus or resources.gpus_per_trial else "cpu")
    if device == "cuda" and not num_gpus and not (joined and resources.max_concurrent):
        why = "this sweep ran on GPUs before" if chosen_before == "cuda" else "GPUs are requested"
        raise SetupError(
            f"resources: {why}, but the cluster has none",
            "set resources.device: cpu, or join a cluster with GPUs",
            code="gpu-missing",
        )
    return device


def _ask_worker(
    driver: Driver,
    plan: Plan,
    data: StagedDataset,
    cached: dict[str, Any],
    asks_precision: bool,
    asks_compile: bool,
    share: float | None,
    cases: list[NetworkCase],
) -> tuple[dict[str, Any], list[NetworkReport]]:
    """Asks one worker for the precision, whether compilation works (if requested), and the network checks."""
    resolved = merge_settings(plan.spec.resources, cached)
    needs = {"num_cpus": 1, "num_gpus": min(share or 1.0, 1.0) if resolved.device == "cuda" else 0}
    runtime = replace(resolved.runtime(plan.spec.resources), compile=False)
    capacities = [node["Resources"] for node in alive_nodes()]
    if not any(capacity.get("CPU") and capacity.get("GPU", 0) >= needs["num_gpus"] for capacity in capacities):
        driver.announce(NO_CAPACITY)
    process = WatchedProcess(limit_s(plan.spec.stage_timeout), **needs)
    known = cached.get("precision")
    question = (resolved.device, asks_compile, cases, data, plan.data_facts, runtime, plan.custom_files, known)
    try:
        answer = _ask_all(driver, [process], "call", probe_hardware, *question)[0]
    finally:
        process.kill()
    answers: dict[str, Any] = {"precision": answer["precision"]} if asks_precision or asks_compile else {}
    if asks_compile:
        problem = answer["compile_problem"]
        answers |= {"compile": not problem, "compile_problem": problem}
        if problem:
            driver.announce(f"torch.compile is disabled (resources.compile: true has no effect): {problem}")
    return answers, answer.get("reports", [])


def _tune_gpu_share(driver: Driver, plan: Plan, data: StagedDataset, resolved: ResolvedSettings, node: dict[str, Any]) -> float:
    """The share of a GPU for each trial with which concurrent trials train the most images per second."""
    with _probes(driver, plan, data, resolved, 1, {"num_cpus": 1, "num_gpus": 1}, node) as (measure, peak, probe):
        gpu_bytes = _ask_all(driver, [probe], "ask", "gpu_bytes")[0]
        fits = max(1, min(MAX_TRIALS_PER_GPU, int(MEMORY_SHARE * gpu_bytes // peak)))
        totals = {1: measure()}
    count = 2
    while count <= fits and totals[count // 2] >= NEAR_BEST * max(totals.values()):  # as long as it still pays
        needs = {"num_cpus": 0.01, "num_gpus": 1 / count}
        with _probes(driver, plan, data, resolved, count, needs, node) as (measure, _, _):
            totals[count] = measure()
        count *= 2
    best = smallest_near_best(totals)
    memory = f"one takes {peak / 2**30:.1f} GiB"
    driver.announce(f"{best} trials share a GPU: {memory}; images/s side by side: {_format_totals(totals)}")
    return 1 / best


def _tune_cpus(driver: Driver, plan: Plan, data: StagedDataset, resolved: ResolvedSettings, node: dict[str, Any]) -> float:
    """The CPUs of a trial with which a full node trains the most images per second."""
    cpus = int(node["Resources"]["CPU"])
    totals: dict[int, float] = {}
    threads = 1
    while threads <= max(1, cpus):
        count = cpus // threads
        if resolved.gpus_per_trial:
            count = min(count, int(node["Resources"]["GPU"] / resolved.gpus_per_trial))
        needs = {"num_cpus": threads, "num_gpus": resolved.gpus_per_trial}
        with _probes(driver, plan, data, replace(resolved, cpus_per_trial=threads), count, needs, node) as (measure, _, _):
            totals[threads] = measure()
        threads *= 2
    best = smallest_near_best(totals)
    driver.announce(f"{best} CPUs per trial; images/s of a full node by CPUs per trial: {_format_totals(totals)}")
    return float(best)


def _format_totals(totals: dict[int, float]) -> str:
    return ", ".join(f"{candidate}: {total:,.0f}" for candidate, total in totals.items())


@contextmanager
def _probes(
    driver: Driver,
    plan: Plan,
    data: StagedDataset,
    resolved: ResolvedSettings,
    count: int,
    needs: dict[str, float],
    node: dict[str, Any],
) -> Iterator[tuple[Callable[[], float], int, WatchedProcess]]:
    """Probes of the sweep's largest trial on one node.

    Yields a function that measures their total images/s, the peak memory of one in bytes, and one of them.
    """
    largest = max((trial.config for trial in plan.trials), key=lambda config: config.training.batch_size)
    runtime = adjusted_runtime(resolved.runtime(plan.spec.resources), largest, resolved.adjustments)
    config = canonical(largest)
    limit = limit_s(plan.spec.stage_timeout)
    probes = [WatchedProcess(limit, **needs, **only_on(node["NodeID"])) for _ in range(count)]
    try:
        _ask_all(driver, probes, "create", Probe, config, data, runtime, plan.custom_files)
        peak = max(_ask_all(driver, probes, "ask", "measure_peak_memory"))

        def measure() -> float:
            return float(sum(_ask_all(driver, probes, "ask", "images_per_second", MEASURE_DURATION_S)))

        yield measure, peak, probes[0]
    finally:
        for probe in probes:
            probe.kill()


def _on_largest_node(
    driver: Driver, measure: Callable[[dict[str, Any]], float], resource: str, other_resource: str, excluded: Collection[str]
) -> float:
    """Measures on the largest node; if a probe is lost, most likely with its node, once more on another one.

    Raises:
        SetupError: it could not be measured.
    """
    node = _largest_node(resource, other_resource, excluded)
    try:
        return measure(node)
    except ProbeLostError:
        excluded = {*excluded, node["NodeID"]}
        if not _nodes(resource, other_resource, excluded):
            raise
    driver.announce(f"node {node['NodeManagerAddress']} lost a probe; measuring on another node")
    return measure(_largest_node(resource, other_resource, excluded))


def _nodes(resource: str, other_resource: str, excluded: Collection[str]) -> list[dict[str, Any]]:
    nodes = [node for node in alive_nodes() if node["Resources"].get(resource) and node["Resources"].get(other_resource)]
    return [node for node in nodes if node["NodeID"] not in excluded]


def _largest_node(resource: str, other_resource: str, excluded: Collection[str]) -> dict[str, Any]:
    """The node to measure on.

    Raises:
        SetupError: none is up, on a cluster that adds nodes on demand.
    """
    nodes = _nodes(resource, other_resource, excluded)
    if not nodes:
        raise SetupError(
            f"no node with a {resource} is up to measure on",
            "write resources.cpus_per_trial and resources.gpus_per_trial as numbers",
            code="node-missing",
        )
    return max(nodes, key=lambda node: float(node["Resources"][resource]))


def _ask_all(driver: Driver, processes: Sequence[WatchedProcess], method: str, *arguments: Any) -> list[Any]:
    """The answers of all processes, however long a free slot takes.

    Raises:
        InterruptedError: a signal came meanwhile.
        SetupError: one of them failed or hung; ProbeLostError if its process was lost.
    """
    answers = [getattr(process.work, method).remote(*arguments) for process in processes]
    waited_s = 0.0
    try:
        while waiting := ray.wait(answers, num_returns=len(answers), timeout=WAIT_INTERVAL_S)[1]:
            waited_s += WAIT_INTERVAL_S
            if driver.signal is not None:
                raise InterruptedError
            if waited_s == 30:
                driver.screen.print("waiting for workers, to measure the automatic settings there")
            for process, answer in zip(processes, answers, strict=True):
                if answer in waiting:
                    process.look()
        return [process.result(answer) for process, answer in zip(processes, answers, strict=True)]
    except HungProcessError as error:
        driver.folder.log(f"an automatic setting: the stacks of its probe\n{error.stacks or 'are not known'}")
        raise SetupError(f"an automatic setting could not be measured, got {error}", HINT, code="probe-hung") from error
    except ray.exceptions.RayError as error:
        reason = shortened(str(getattr(error, "cause", None) or error).strip().splitlines()[-1])
        error_class = ProbeLostError if isinstance(error, ray.exceptions.RayActorError) else SetupError
        raise error_class(
            f"an automatic setting could not be measured, its probe failed: {reason}",
            "write precision, resources.cpus_per_trial and resources.gpus_per_trial in the sweep file, or correct the trial",
            code="probe-failed",
        ) from error
