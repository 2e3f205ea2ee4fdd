"""The data preflight of a sweep in a process of its own, since it needs PyTorch.

    <storage>/data/preflight/<digest of data, split and code>.json    the report (trainables/preflight/data_report.py)
    <storage>/data/preflight/<the same>.png                           the contact sheet

The same files in the node's cache make it once per machine for all storages.
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
from orchestrator.process.child import ChildError, ask, serve
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
MAX_SETTINGS = 8  # ways to split the data that are looked at, where a sweep searches them


class PreflightError(Exception):
    """The data could not be checked; the message is the reason."""


def dataset_settings(plan: Plan) -> list[DatasetConfig]:
    """The first ways in which the trials of a plan limit and split the data: those that are looked at."""
    return all_settings(plan)[:MAX_SETTINGS]


def all_settings(plan: Plan) -> list[DatasetConfig]:
    return list(dict.fromkeys(trial.config.dataset for trial in plan.trials))


def describe_split(dataset: DatasetConfig, settings: Sequence[DatasetConfig]) -> str:
    """What distinguishes one of several splits, such as "limit 100, validation 0.2"; empty for the only one."""
    first, *others = map(asdict, settings)
    differing = [name for name in first if any(other[name] != first[name] for other in others)]
    return ", ".join(f"{name} {getattr(dataset, name)}" for name in differing)


def stored_file(plan: Plan, dataset: DatasetConfig, suffix: str) -> str:
    """Name in the storage of the report or the sheet of a plan's data, split in this way."""
    content = json.dumps([VERSION, plan.data_digest, canonical(dataset)], sort_keys=True)
    return f"data/preflight/{hashlib.sha256(content.encode()).hexdigest()[:32]}.{suffix}"


def stored_preflight(plan: Plan, storage: Storage, dataset: DatasetConfig) -> tuple[dict[str, Any], bytes] | None:
    """Report and contact sheet that were made before; None if there are none."""
    report = storage.read_json(stored_file(plan, dataset, "json"))
    sheet = storage.read(stored_file(plan, dataset, "png"))
    return None if report is None or sheet is None else (report, sheet)


def _store(plan: Plan, storage: Storage, dataset: DatasetConfig, report: dict[str, Any], sheet: bytes) -> None:
    storage.write(stored_file(plan, dataset, "png"), sheet)
    storage.write_json(stored_file(plan, dataset, "json"), report)


def data_preflight(plan: Plan, storage: Storage, dataset: DatasetConfig, hurry: bool = True) -> tuple[dict[str, Any], bytes]:
    """Report and contact sheet of the data of a plan, from the storage or the node's cache if they were made before.

    Args:
        dataset: one of the plan's settings.
        hurry: without it the process gives way to all others.

    Raises:
        PreflightError: the data cannot be read.
    """
    if known := stored_preflight(plan, storage, dataset):
        return known
    cache = node_cache()
    made = stored_preflight(plan, cache, dataset)
    if made is None:
        made = _made(plan, dataset, hurry)
        _store(plan, cache, dataset, *made)
    _store(plan, storage, dataset, *made)
    return made


def _made(plan: Plan, dataset: DatasetConfig, hurry: bool) -> tuple[dict[str, Any], bytes]:
    begun = time.monotonic()
    source = plan.source
    assert plan.data_facts is not None, "a plan of data that were hashed"
    question = {
        "source": asdict(source),
        "dataset": canonical(dataset),
        "facts": plan.data_facts.to_json(),
        "own": plan.custom_files.digests.get(source.name),
        "nice": not hurry,
    }
    try:
        answer = ask(__name__, question, keep_errors=True)
    except ChildError as error:
        raise PreflightError(str(error)) from error
    if "error" in answer:
        raise PreflightError(answer["error"])
    return answer["report"] | {"seconds": round(time.monotonic() - begun, 2)}, base64.b64decode(answer["sheet"])


def findings_of(report: dict[str, Any]) -> list[Finding]:
    return [Finding.from_json(finding) for finding in report["findings"]]


class BackgroundPreflight:
    """The data preflight in the background of a sweep: Ray's start does not wait for it; warnings are shown as they come."""

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
                report, _ = data_preflight(self._plan, self._storage, dataset, hurry=False)
            except PreflightError:
                return  # trials raise the same, and record it
            except Exception as error:  # whatever it is, it must not end the sweep
                self._notify(f"data: the preflight could not be made: {error}")
                return
            label = " ".join(filter(None, ["data", describe_split(dataset, settings)]))
            for finding in findings_of(report):
                if finding.severity != "info":
                    self._notify(f"{label}: {finding}")

    def _notify(self, line: str) -> None:
        self.lines.append(line)
        self._say(line)


def preflight_artifacts(plan: Plan, storage: Storage) -> dict[str, bytes]:
    """What the sweep's run in MLflow shows of its data: data.json and data.png, data-2.json for a second way to split them.

    Without what was not examined.
    """
    artifacts: dict[str, bytes] = {}
    try:
        for number, dataset in enumerate(dataset_settings(plan) if plan.data_digest else [], start=1):
            if known := stored_preflight(plan, storage, dataset):
                name = numbered("data", number)
                artifacts |= {f"{name}.json": json.dumps(known[0], indent=1).encode(), f"{name}.png": known[1]}
    except Exception:  # a picture must not decide how a sweep ends
        return {}
    return artifacts


def numbered(name: str, number: int) -> str:
    """The name of the first one, and of the others with their number."""
    return name if number == 1 else f"{name}-{number}"


def main() -> None:
    """The child: answers with the report and the sheet, or the error."""
    serve(_answer)


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    if question["nice"]:
        os.nice(10)
    try:
        return _report_and_sheet(question)
    except (TrialError, OSError) as error:
        return {"error": str(error)}


def _report_and_sheet(question: dict[str, Any]) -> dict[str, Any]:
    import torch

    from trainables.data.splits import load_data
    from trainables.preflight.contact_sheet import contact_sheet
    from trainables.preflight.data_report import class_names, data_report

    torch.set_num_threads(1)
    source, dataset = DatasetSource(**question["source"]), from_canonical(DatasetConfig, question["dataset"])
    if is_custom(source.name):
        import_function(source, question["own"])
    facts = DataFacts.from_json(question["facts"])
    data = load_data(dataset, source, "cpu")
    report = data_report(dataset, source, facts, data)
    sheet = contact_sheet(data, class_names(source, facts))
    return {"report": report, "sheet": base64.b64encode(sheet).decode()}
