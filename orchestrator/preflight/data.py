"""The data preflight of a sweep, in a separate process since it needs PyTorch.

    <storage>/data/preflight/<digest of data, split and code>.json    the report (trainables/preflight/data_report.py)
    <storage>/data/preflight/<the same>.png                           the contact sheet

The node's cache keeps the same files, so that each machine checks the same data once for all its storages.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from threading import Thread
from typing import Any

from orchestrator.planning.decoding_process import import_function
from orchestrator.planning.plan import Plan
from orchestrator.process.child import ChildError, HungChildError, ask, serve
from orchestrator.process.patience import FUNCTION_S, HINT, limit_s
from orchestrator.storage.base import Storage
from orchestrator.storage.local import node_cache
from trainables.config.keys import canonical, from_canonical
from trainables.config.trial import DatasetConfig
from trainables.custom.references import is_custom
from trainables.data.facts import DataFacts
from trainables.data.source import DatasetSource
from trainables.errors import TrialError
from trainables.findings import Finding

VERSION = 2  # of report and sheet; raised when either changes for the same data
REPORT_FIELDS = ("dataset", "image_shape", "classes", "splits", "files", "duplicates", "findings", "seconds")
MAX_SETTINGS = 8  # data settings that are checked, where a sweep searches over several


class PreflightError(Exception):
    """The data could not be checked. Its text is "message; hint".

    Attributes:
        message: what is wrong.
        hint: how to fix it; empty where the message says it all.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


def dataset_settings(plan: Plan) -> list[DatasetConfig]:
    """The data settings (limit, split) of a plan's trials that are checked: the first MAX_SETTINGS."""
    return all_settings(plan)[:MAX_SETTINGS]


def all_settings(plan: Plan) -> list[DatasetConfig]:
    """All data settings of a plan's trials, in its order."""
    return list(dict.fromkeys(trial.config.dataset for trial in plan.trials))


def describe_split(dataset: DatasetConfig, settings: Sequence[DatasetConfig]) -> str:
    """What distinguishes one of several splits, such as "limit 100, validation 0.2"; empty for the only one."""
    first, *others = map(asdict, settings)
    differing = [name for name in first if any(other[name] != first[name] for other in others)]
    return ", ".join(f"{name} {getattr(dataset, name)}" for name in differing)


def stored_file(plan: Plan, dataset: DatasetConfig, suffix: str) -> str:
    """Name in the storage of the report or the contact sheet of a plan's data with this setting."""
    content = json.dumps([VERSION, plan.data_digest, canonical(dataset)], sort_keys=True)
    return f"data/preflight/{hashlib.sha256(content.encode()).hexdigest()[:32]}.{suffix}"


def stored_preflight(plan: Plan, storage: Storage, dataset: DatasetConfig) -> tuple[dict[str, Any], bytes] | None:
    """The report and the contact sheet of an earlier preflight; None if there was none."""
    report = storage.read_json(stored_file(plan, dataset, "json"), fields=REPORT_FIELDS)
    sheet = storage.read(stored_file(plan, dataset, "png"))
    return None if report is None or sheet is None else (report, sheet)


def reading_seconds(plan: Plan, storage: Storage, dataset: DatasetConfig) -> float:
    """How long the data preflight took, which reads and splits the data; 0 if there was none."""
    report = storage.read_json(stored_file(plan, dataset, "json"), fields=("seconds",))
    return float(report["seconds"]) if report else 0.0


def _store(plan: Plan, storage: Storage, dataset: DatasetConfig, report: dict[str, Any], sheet: bytes) -> None:
    storage.write(stored_file(plan, dataset, "png"), sheet)
    storage.write_json(stored_file(plan, dataset, "json"), report)


def data_preflight(
    plan: Plan, storage: Storage, dataset: DatasetConfig, low_priority: bool = False
) -> tuple[dict[str, Any], bytes]:
    """The report and the contact sheet of a plan's data; an earlier preflight is reused from the storage or the node's cache.

    Args:
        dataset: one of the plan's settings.
        low_priority: the process yields the CPU to all others.

    Raises:
        PreflightError: the data cannot be read.
    """
    if stored := stored_preflight(plan, storage, dataset):
        return stored
    cache = node_cache()
    stored = stored_preflight(plan, cache, dataset)
    if stored is None:
        stored = _run_preflight(plan, dataset, low_priority)
        _store(plan, cache, dataset, *stored)
    _store(plan, storage, dataset, *stored)
    return stored


def _run_preflight(plan: Plan, dataset: DatasetConfig, low_priority: bool) -> tuple[dict[str, Any], bytes]:
    started = time.monotonic()
    source = plan.source
    assert plan.data_facts is not None, "a plan of data that were hashed"
    request = {
        "source": asdict(source),
        "dataset": canonical(dataset),
        "facts": plan.data_facts.to_json(),
        "custom_digest": plan.custom_files.digests.get(source.name),
        "nice": low_priority,
    }
    try:
        response = ask(__name__, request, keep_errors=True, limit_s=limit_s(plan.spec.stage_timeout, FUNCTION_S))
    except HungChildError as error:
        raise PreflightError(f"the data must be readable, got {error}", HINT) from error
    except ChildError as error:
        raise PreflightError(str(error)) from error
    if "error" in response:
        raise PreflightError(response["error"], response["hint"])
    return response["report"] | {"seconds": round(time.monotonic() - started, 2)}, base64.b64decode(response["sheet"])


def findings_of(report: dict[str, Any]) -> list[Finding]:
    return [Finding.from_json(finding) for finding in report["findings"]]


class BackgroundPreflight:
    """Runs the data preflight in the background, so that Ray starts meanwhile; warnings are printed as they come."""

    def __init__(self, plan: Plan, storage: Storage, say: Callable[[str], None]) -> None:
        self.lines: list[str] = []  # for the sweep's log
        self._plan, self._storage, self._say = plan, storage, say
        self._thread = Thread(target=self._work, name="data preflight", daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> None:
        self._thread.join(seconds)

    def _work(self) -> None:
        if self._plan.data_digest is None or self._plan.data_facts is None:
            return
        settings = dataset_settings(self._plan)
        for dataset in settings:
            try:
                report, _ = data_preflight(self._plan, self._storage, dataset, low_priority=True)
            except PreflightError:
                return  # trials raise and record the same error
            except Exception as error:  # an unexpected error must not end the sweep
                self._notify(f"data: the preflight failed: {error}")
                return
            label = " ".join(filter(None, ["data", describe_split(dataset, settings)]))
            for finding in findings_of(report):
                if finding.severity != "info":
                    self._notify(f"{label}: {finding}")

    def _notify(self, line: str) -> None:
        self.lines.append(line)
        self._say(line)


def preflight_artifacts(plan: Plan, storage: Storage) -> dict[str, bytes]:
    """The preflight files for the sweep's run in MLflow: data.json and data.png, data-2.json for a second setting, and so on.

    Settings without a stored preflight are skipped.
    """
    artifacts: dict[str, bytes] = {}
    try:
        for number, dataset in enumerate(dataset_settings(plan) if plan.data_digest else [], start=1):
            if stored := stored_preflight(plan, storage, dataset):
                name = numbered("data", number)
                artifacts |= {f"{name}.json": json.dumps(stored[0], indent=1).encode(), f"{name}.png": stored[1]}
    except Exception:  # a missing picture must not fail a sweep
        return {}
    return artifacts


def numbered(name: str, number: int) -> str:
    """The name for the first item; with "-NUMBER" for the others."""
    return name if number == 1 else f"{name}-{number}"


def main() -> None:
    """The child process: responds with the report and the sheet, or with an error."""
    serve(_respond)


def _respond(request: dict[str, Any]) -> dict[str, Any]:
    if request["nice"]:
        os.nice(10)
    try:
        return _report_and_sheet(request)
    except TrialError as error:
        return {"error": error.message, "hint": error.hint}
    except OSError as error:
        return {"error": str(error), "hint": ""}


def _report_and_sheet(request: dict[str, Any]) -> dict[str, Any]:
    import torch

    from trainables.data.splits import load_data
    from trainables.preflight.contact_sheet import contact_sheet
    from trainables.preflight.data_report import class_names, data_report

    torch.set_num_threads(1)
    source, dataset = DatasetSource(**request["source"]), from_canonical(DatasetConfig, request["dataset"])
    if is_custom(source.name):
        import_function(source, request["custom_digest"])
    facts = DataFacts.from_json(request["facts"])
    data = load_data(dataset, source, "cpu")
    report = data_report(dataset, source, facts, data)
    sheet = contact_sheet(data, class_names(source, facts))
    return {"report": report, "sheet": base64.b64encode(sheet).decode()}
