"""A job of a cluster, as Ray's Jobs API reports it, and its log. Imports no Ray."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from orchestrator.errors import EXIT_DONE, EXIT_ENVIRONMENT
from trainables.runtime.json_text import parse_json

ACTIVE = ("PENDING", "RUNNING")
EXIT_STOPPED = 143  # of SIGTERM; Ray does not keep the exit code of a stopped job
HEAD = re.compile(r"\A.*?^Running entrypoint for job [^\n]*\n", re.DOTALL | re.MULTILINE)  # Ray's, before the job's output
RAY_LINE = re.compile(
    r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}\tINFO |\[\d{4}-\d\d-\d\d [\d:,]+ [IWE] \d+ \d+\]).*\n", re.MULTILINE
)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job that belongs to a sweep, as the cluster reports it.

    Attributes:
        state: in Ray's words: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
        exit_code: that of its command; None while it runs.
        custom_files: path in the package -> custom file on the machine that submitted the job.
    """

    id: str
    sweep: str
    storage: str
    state: str
    started: float
    ended: float | None
    exit_code: int | None
    problem: str
    revision: str
    user: str
    custom_files: dict[str, str] = field(default_factory=dict)

    @property
    def active(self) -> bool:
        return self.state in ACTIVE


def without_ray_lines(log: str) -> str:
    """A job's log without Ray's lines; empty until the command has started."""
    return RAY_LINE.sub("", HEAD.sub("", log, count=1)) if HEAD.match(log) else ""


def job_from(details: Any) -> Job:
    metadata = details.metadata or {}
    state = str(details.status.value)
    code: int | None = None
    if state not in ACTIVE:
        code = {"SUCCEEDED": EXIT_DONE, "STOPPED": EXIT_STOPPED}.get(state, _exit_code(details.driver_exit_code))
    return Job(
        id=str(details.submission_id),
        sweep=metadata.get("drive.sweep", ""),
        storage=metadata.get("drive.storage", ""),
        state=state,
        started=(details.start_time or 0) / 1000,
        ended=details.end_time and details.end_time / 1000,
        exit_code=code,
        problem="" if details.driver_exit_code is not None else str(details.message or ""),
        revision=metadata.get("drive.revision", ""),
        user=metadata.get("drive.user", ""),
        custom_files=parse_json(metadata.get("drive.own", "{}")),
    )


def _exit_code(code: int | None) -> int:
    """The exit code as a shell reports it; Ray keeps none of a driver that never started."""
    if code is None:
        return EXIT_ENVIRONMENT
    return code if code >= 0 else 128 - code
