"""The doctor: checks what a sweep needs by using it, and repairs what a crash left behind.

All checks run, even if the first one fails. On a cluster they run on every node.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial

from orchestrator.cluster.addresses import is_local_ray
from orchestrator.cluster.connection import ray_folder
from orchestrator.cluster.node_info import local_node_info
from orchestrator.cluster.shared_storage_probe import SharedStorageProbe
from orchestrator.diagnostics.agreement import agreement_checks
from orchestrator.diagnostics.checks import Check, check_free_space, from_error, machine_checks, run_check
from orchestrator.errors import SweepError, UserError
from orchestrator.planning.plan import Plan
from orchestrator.preflight.data import PreflightError, data_preflight, dataset_settings, findings_of
from orchestrator.search.plans import plan_sweep
from orchestrator.spec.schema import SweepSpec, Tracking
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.base import Storage
from orchestrator.storage.factory import open_storage
from orchestrator.tracking.client import TrackingTarget
from orchestrator.tracking.database_file import NAME as DATABASE
from orchestrator.tracking.read_only import is_usable
from orchestrator.tracking.target import given_target, storage_target, tracking_target
from trainables.preflight.network_case import cases_of


def run_checks(
    spec: SweepSpec | None, storage_uri: str, tracking_uri: str | None, address: str | None, fix: bool = False
) -> Iterator[Check]:
    """All checks, in the order in which they are printed.

    Args:
        spec: the sweep that will run; without it the data is not checked.
        tracking_uri: where runs go, if there is no sweep.
        fix: mend what does not agree; without it nothing in the storage or in MLflow is changed.
    """
    storage, checks = _check_storage(storage_uri)
    yield from checks
    target: TrackingTarget | None = None
    try:
        target = _target(spec, storage, tracking_uri)
    except SweepError as error:
        yield from_error("tracking", error)
    if target is not None and is_usable(target):  # else the comparison below says what is wrong
        yield from _check_tracking(target)
    plan: Plan | None = None
    if spec is not None and storage is not None:
        plan, check = _check_data(spec, storage)
        yield check
        if plan is not None:
            yield run_check("images", partial(_check_images, plan, storage))
        if plan is not None and is_local_ray(address):
            yield from _check_networks(plan, storage)
    if is_local_ray(address):
        yield run_check("ray", _ray_folder)
        yield from machine_checks("this machine", local_node_info(with_gpus=True), local_node_info(with_gpus=False), ray_gpus=0)
    else:
        from orchestrator.diagnostics.nodes import cluster_checks

        yield from cluster_checks(address, storage, target, plan)
    if storage is not None:
        yield from agreement_checks(storage, fix)


def _ray_folder() -> str:
    folder, remark = ray_folder()
    return f"Ray works in {folder}" + (f"; {remark}" if remark else "")


def _target(spec: SweepSpec | None, storage: Storage | None, uri: str | None) -> TrackingTarget | None:
    """Where the runs of the sweep go; without a sweep, the explicit URI or the database in the storage.

    None if there is no such database yet, or if it is in a storage that cannot be used.

    Raises:
        UserError: there is no URI, and the storage is not a folder.
    """
    experiment = spec.tracking.experiment if spec else Tracking().experiment
    if uri := (spec.tracking.uri if spec else uri):
        return given_target(uri, experiment)
    if storage is None:
        return None
    if spec is not None:
        return tracking_target(spec, storage)
    folder = storage.folder
    return storage_target(folder, experiment) if folder is not None and (folder / DATABASE).exists() else None


def _check_storage(uri: str) -> tuple[Storage | None, list[Check]]:
    opened: list[Storage] = []

    def write() -> str:
        storage = open_storage(uri, create=True)
        folder = SharedStorageProbe.create(storage)
        folder.cleanup()
        opened.append(storage)
        return f"{storage.root} can be read and written"

    checks = [run_check("storage", write, "give a folder that can be written with --storage")]
    storage = opened[0] if opened else None
    if storage is not None and storage.folder is not None:
        checks.append(check_free_space("disk", f"storage {storage.root}", shutil.disk_usage(storage.folder).free))
    return storage, checks


def _check_tracking(target: TrackingTarget) -> Iterator[Check]:
    from orchestrator.diagnostics.tracking import check_artifacts, check_server

    server = run_check("tracking", lambda: check_server(target))
    yield server
    if server.ok:
        yield run_check("artifacts", lambda: check_artifacts(target), "let the tracking server write its artifacts")


def _check_data(spec: SweepSpec, storage: Storage) -> tuple[Plan | None, Check]:
    plans: list[Plan] = []

    def read() -> str:
        plans.append(plan_sweep(spec, storage, hash_data=True).checked)
        return (
            f"{spec.dataset.name} is on this machine, digest {plans[0].data_digest}; {len(plans[0].trials)} trials are planned"
        )

    check = run_check("data", read)
    return (plans[0] if plans else None), check


def _check_images(plan: Plan, storage: Storage) -> str:
    """The findings of the data preflight, in words; warnings are no failure."""
    try:
        reports = [data_preflight(plan, storage, dataset)[0] for dataset in dataset_settings(plan)]
    except PreflightError as error:
        raise UserError(error.message, error.hint, code="data-invalid") from error
    warnings = (str(finding) for report in reports for finding in findings_of(report) if finding.severity != "info")
    findings = list(dict.fromkeys(warnings))
    return "; ".join(findings) if findings else "no duplicates between splits, no missing classes, no constant pixels"


def _check_networks(plan: Plan, storage: Storage) -> Iterator[Check]:
    """The checks that a sweep makes of its networks before it starts."""
    import torch

    from orchestrator.preflight.network_process import child_reports
    from orchestrator.preflight.networks import local_runtime

    runtime = local_runtime(plan, SweepFolder(storage, plan.spec.name))
    if runtime.device == "cuda" and not torch.cuda.is_available():
        message = "networks are checked on a GPU, as the sweep file asks for one, but this machine has none"
        yield Check(name="network", ok=False, message=message, hint="set resources.device: cpu, or check on a node with GPUs")
        return
    try:
        reports = child_reports(plan, cases_of(trial.config for trial in plan.trials), runtime)
    except UserError as error:
        yield from_error("network", error)
        return
    for report in reports:
        for finding in report.findings:
            ok = finding.severity != "error"
            yield Check(name="network", ok=ok, message=f"{report.model}: {finding.message}", hint=finding.hint)
        if not report.errors:
            message = f"{report.model} passes its checks, in {report.seconds:.1f} s"
            yield Check(name="network", ok=True, message=message)
