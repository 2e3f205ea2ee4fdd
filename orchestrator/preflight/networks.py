"""The network checks of a sweep: which are still needed, their findings, and their record beside resolved.json.

A worker runs them once for each network; later runs reuse the reports until something that they depend on changes. With a local
Ray, reports of other sweeps are reused from the node's cache. Imports neither Ray nor PyTorch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, fields
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import trainables
from orchestrator.command_line import command
from orchestrator.errors import UserError
from orchestrator.planning.plan import Plan
from orchestrator.planning.resolved_settings import merge_settings, read_resolved, valid_on_device
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.base import Storage, report_damage
from trainables.config.trial import TrialConfig
from trainables.custom.files import CustomFiles
from trainables.custom.references import TIMINGS, is_custom, without_method
from trainables.data.staging import StagedDataset
from trainables.preflight.network_case import CHECKS_VERSION, NetworkCase, NetworkReport, adjusted_runtime, case_id, cases_of
from trainables.runtime.device import Runtime, resolve_precision
from trainables.runtime.machine import processor_name, processors
from trainables.wording import listed

RECORD = "network_checks.json"
REPORT_FIELDS = [field.name for field in fields(NetworkReport)]
REQUIRED_FIELDS = {field.name for field in fields(NetworkReport) if field.default is MISSING}

Notify = Callable[[str], None]


class NetworkChecks:
    """The reports on a sweep's networks, from its folder and from the checks of this run."""

    def __init__(self, folder: SweepFolder, plan: Plan, device: str, cache: Storage | None = None) -> None:
        """`cache` is this machine's; None where other machines compute."""
        self.folder, self.plan, self.device, self.cache = folder, plan, device, cache
        unfinished = {case_id(trial.config) for trial in plan.unfinished}
        self.cases = [case for case in cases_of(trial.config for trial in plan.trials) if case.id in unfinished]
        self.record = _recorded(folder)

    def unanswered(self, precision: str | None) -> list[NetworkCase]:
        """The networks of unfinished trials that have no report yet.

        Args:
            precision: what `auto` resolves to; None while unknown, and then no report is valid.
        """
        return [case for case in self.cases if self._current_report(case, precision) is None]

    def add(self, reports: Iterable[NetworkReport], precision: str | None, notify: Notify) -> None:
        """Reports the findings, and records them.

        Raises:
            UserError: a network cannot be used by this sweep; then nothing is recorded.
        """
        reports = list(reports)
        require_no_errors(reports)
        self._record(reports, precision, notify)
        if reports:
            seconds = sum(report.seconds for report in reports)
            notify(f"{listed({report.model: None for report in reports}, 3)}: checked in {seconds:.1f} s")
        if self.cache is not None:
            for case, report in self._complete(reports):
                self.cache.write_json(self._cache_name(case, precision), report.to_json())

    def load_cached(self, precision: str | None, notify: Notify) -> None:
        """Reuses reports that other sweeps of this machine left in the node's cache."""
        if self.cache is None:
            return
        names = [self._cache_name(case, precision) for case in self.unanswered(precision)]
        reports = [self.cache.read_json(name, fields=REPORT_FIELDS) for name in names]
        self._record([NetworkReport.from_json(report) for report in reports if report], precision, notify)

    def _record(self, reports: Sequence[NetworkReport], precision: str | None, notify: Notify) -> None:
        for report in reports:
            for finding in report.findings:
                notify(f"{report.model}: {finding}")
        for case, report in self._complete(reports):
            self.record[case.id] = {"depends": self._dependencies(case, precision), "report": report.to_json()}
        if reports:
            self.folder.storage.write_json(self.folder.file(RECORD), self.record)

    def _complete(self, reports: Iterable[NetworkReport]) -> list[tuple[NetworkCase, NetworkReport]]:
        by_id = {case.id: case for case in self.cases}
        return [(by_id[report.case], report) for report in reports if report.is_complete]

    def adjustments(self, precision: str | None, notify: Notify) -> dict[str, dict[str, Any]]:
        """Case id -> runtime fields that differ for it. Also reports finished results that were computed without them."""
        known = {case.id: self._current_report(case, precision) for case in self.cases}
        adjusted = {id_: report.adjusted for id_, report in known.items() if report is not None and report.adjusted}
        in_fp32 = {id_ for id_, fields in adjusted.items() if fields.get("precision") == "fp32"}
        affected = [
            trial
            for trial in self.plan.trials
            if case_id(trial.config) in in_fp32 and trial.result is not None and _computed_in_bf16(trial.result)
        ]
        if affected:
            notify(
                f"{len(affected)} finished trials were computed in bf16, which is wrong for their network on this machine "
                f"(first {affected[0].key} {affected[0].name}); `{command('run', '--recompute')}` computes them again"
            )
        return adjusted

    def _current_report(self, case: NetworkCase, precision: str | None) -> NetworkReport | None:
        entry = self.record.get(case.id)
        if not entry or entry["depends"] != self._dependencies(case, precision):
            return None
        return NetworkReport.from_json(entry["report"])

    def _cache_name(self, case: NetworkCase, precision: str | None) -> str:
        """Name of the report in the node's cache; it changes with the code."""
        content = json.dumps([case.id, self._dependencies(case, precision), code_digest()], sort_keys=True)
        return f"networks/{hashlib.sha256(content.encode()).hexdigest()[:32]}.json"

    def _dependencies(self, case: NetworkCase, precision: str | None) -> dict[str, Any]:
        """What the report depends on, as far as the driver knows."""
        return {
            "checks": CHECKS_VERSION,
            "methods": case.methods_id,
            "own": _digests(self.plan.custom_files, case.configs),
            "data": self.plan.data_digest,
            "device": self.device,
            "precision": precision if case.config.precision == "auto" else case.config.precision,
            "deterministic": self.plan.spec.resources.deterministic,
            **_of_several_workers(self.plan),
            "torch": version("torch"),
            "processor": processor_name(),  # the driver's; also the workers', unless a cluster was joined
        }


def _of_several_workers(plan: Plan) -> dict[str, bool]:
    """What a report depends on besides, for a sweep whose trials have several workers, which ask more of a network."""
    return {"parts": True} if plan.spec.resources.workers > 1 else {}


def _recorded(folder: SweepFolder) -> dict[str, Any]:
    """Case id -> its report and what that depends on; without what is damaged, which is checked again."""
    record = folder.storage.read_json(folder.file(RECORD)) or {}
    whole = {id_: entry for id_, entry in record.items() if _is_entry(entry)}
    if len(whole) < len(record):
        report_damage(folder.storage, folder.file(RECORD))
    return whole


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or not entry.keys() >= {"depends", "report"}:
        return False
    return (
        isinstance(entry["depends"], dict) and isinstance(entry["report"], dict) and entry["report"].keys() >= REQUIRED_FIELDS
    )


def step_seconds(folder: SweepFolder) -> dict[str, float]:
    """Case id -> seconds of a training pass of a batch, of the networks where the checks have measured it."""
    known = {id_: entry["report"].get("step_seconds") for id_, entry in _recorded(folder).items()}
    return {id_: seconds for id_, seconds in known.items() if seconds is not None}


@cache
def code_digest() -> str:
    """SHA-256 (64 hex digits) of the code that builds, checks and trains networks."""
    files = sorted(Path(trainables.__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


def checked_runtime(plan: Plan, config: TrialConfig, folder: SweepFolder, notify: Notify) -> Runtime:
    """The runtime of a trial in this process; its network is checked first, unless the sweep has a valid report.

    Raises:
        UserError: the network cannot be used as the sweep asks for.
    """
    runtime = local_runtime(plan, folder)
    entry = _recorded(folder).get(case_id(config))
    if (
        entry
        and entry["depends"].get("own") == _digests(plan.custom_files, [config])
        and entry["depends"].get("device") == runtime.device
        and entry["depends"].items() >= _of_several_workers(plan).items()
    ):
        return adjusted_runtime(runtime, config, {case_id(config): entry["report"]["adjusted"]})
    (report,) = local_reports(plan, cases_of([config]), runtime)
    require_no_errors([report])
    for finding in report.findings:
        notify(f"{report.model}: {finding}")
    return adjusted_runtime(runtime, config, {report.case: report.adjusted})


def _digests(custom_files: CustomFiles, configs: Sequence[TrialConfig]) -> dict[str, str]:
    """The digests of all custom files that these trials of one case use."""
    methods = {config.method: custom_files.digests[config.method] for config in configs if is_custom(config.method)}
    timings = {TIMINGS: custom_files.digests[TIMINGS]} if any(config.uses_timings for config in configs) else {}
    return custom_files.digests_of(without_method(configs[0])) | methods | timings


def local_reports(plan: Plan, cases: Sequence[NetworkCase], runtime: Runtime) -> list[NetworkReport]:
    """The reports on these networks, checked in this process."""
    from trainables.preflight.network_checks import examine_cases

    return examine_cases(cases, StagedDataset(source=plan.source), plan.data_facts, runtime, plan.custom_files)


def local_runtime(plan: Plan, folder: SweepFolder) -> Runtime:
    """The runtime of the sweep's trials: its resolved settings, else defaults for a process that has the machine to itself."""
    import torch

    resources, cached = plan.spec.resources, read_resolved(folder)
    default_device = cached.get("device") or ("cuda" if torch.cuda.is_available() else "cpu")
    device = default_device if resources.required_device == "auto" else resources.required_device
    defaults = {"precision": resolve_precision("auto", device), "cpus_per_trial": float(processors())}
    return merge_settings(resources, defaults | valid_on_device(device, cached)).runtime(resources)


def _computed_in_bf16(result: dict[str, Any]) -> bool:
    return any(one.get("precision") == "bf16" for one in result.get("fingerprints", ()))


def require_no_errors(reports: Iterable[NetworkReport]) -> None:
    """Raises UserError with all errors of all networks."""
    lines = [f"  {report.model}: {finding}" for report in reports for finding in report.errors]
    if lines:
        raise unusable_networks("\n".join(("", *dict.fromkeys(lines))))


def unusable_networks(problem: str, hint: str = "") -> UserError:
    return UserError(
        f"the networks of the sweep must pass the checks before training, got{problem}",
        hint,
        code="network-unusable",
    )
