"""Commands as messages print them: each can be pasted as it is, storage and addresses included.

`note_options` records the options of the running command, for its child processes too; `command` formats another command for
the same sweep. Words in capitals stand for what only the user knows, such as FILE.
"""

from __future__ import annotations

import json
import os
import shlex
from argparse import Namespace
from dataclasses import asdict, dataclass, replace
from pathlib import Path

PROGRAM = "drive-sweep"
DEFAULT_STORAGE = "./runs"
JOBS_API_VARIABLE = "DRIVE_SWEEP_ASKED_AT"  # in a job: the dashboard at which it was submitted
INVOCATION_VARIABLE = "DRIVE_SWEEP_INVOCATION"  # for child processes
STORAGE_COMMANDS = (
    "plan",
    "data",
    "timings",
    "trial",
    "run",
    "submit",
    "resume",
    "status",
    "logs",
    "stop",
    "sync",
    "report",
    "compare",
    "export",
    "ui",
    "doctor",
    "list",
    "rename",
    "delete",
    "gc",
)
DASHBOARD_COMMANDS = ("submit", "list", "resume", "status", "logs", "stop", "report", "doctor")
JOINING_COMMANDS = ("run", "resume", "doctor")  # a cluster, at HOST:PORT
FILE_COMMANDS = ("plan", "data", "timings", "trial", "run", "submit")
SWEEP_COMMANDS = ("resume", "status", "logs", "stop", "sync", "report", "compare", "export", "rename", "delete")


@dataclass(frozen=True, kw_only=True)
class Invocation:
    """The options of the running command.

    Attributes:
        file: the sweep file; `settings` are the options that change it, as words.
        storage: URI, or an absolute folder; None for the default.
        address: of a dashboard, or HOST:PORT.
        tracking_uri: that of `sync`, whose sweep may name another.
    """

    file: str | None = None
    settings: tuple[str, ...] = ()
    sweep: str | None = None
    storage: str | None = None
    address: str | None = None
    tracking_uri: str | None = None


_running = Invocation(**json.loads(os.environ.get(INVOCATION_VARIABLE, "{}")))


def note_options(options: Namespace) -> None:
    """Records the options of the running command."""
    values = vars(options)
    settings = [word for setting in values.get("set") or () for word in ("--set", setting)]
    if "file" not in values:
        settings = []
    elif "set" in values:
        settings += ["--name", options.name] if options.name else []
        settings += ["--tracking-uri", options.tracking_uri] if options.tracking_uri else []
    _note(
        Invocation(
            file=values.get("file"),
            settings=tuple(settings),
            sweep=values.get("name"),
            storage=_absolute(values.get("storage")),
            address=values.get("address") or os.environ.get(JOBS_API_VARIABLE),
            tracking_uri=values.get("tracking_uri") if options.command == "sync" else None,
        )
    )


def note_sweep(sweep: str, storage: str) -> None:
    """Records the sweep and the storage that the sweep file of the running command names."""
    _note(replace(_running, sweep=sweep, storage=_absolute(storage)))


def _note(invocation: Invocation) -> None:
    global _running
    _running = invocation
    os.environ[INVOCATION_VARIABLE] = json.dumps(asdict(invocation))


def command(name: str, *arguments: str, storage: str | None = None, address: str | None = None, anywhere: bool = False) -> str:
    """A command line for the same sweep file, storage and cluster as the running command.

    Args:
        arguments: its arguments; if the first one, the sweep file or the sweep's name, is omitted, it is that of the running
            command.
        storage, address: instead of those of the running command; an empty address is none.
        anywhere: name the default storage too, which depends on the current folder.
    """
    words = list(arguments)
    if not words or words[0].startswith("-"):
        words = [_running.file or "FILE", *words] if name in FILE_COMMANDS else words
        words = [_running.sweep or "NAME", *words] if name in SWEEP_COMMANDS else words
    if name in FILE_COMMANDS and words[0] == _running.file:
        words += _running.settings
    if name == "sync" and _running.tracking_uri:
        words += ["--tracking-uri", _running.tracking_uri]
    address = (_running.address or "") if address is None else address
    storage = _absolute(storage) or _running.storage
    dashboard = address.startswith(("http://", "https://"))
    if name in STORAGE_COMMANDS and storage and (anywhere or storage != _absolute(DEFAULT_STORAGE)):
        # At a dashboard the newest job of the sweep knows its storage.
        words += (
            ["--storage", storage] if not dashboard or name not in DASHBOARD_COMMANDS or name in ("submit", "doctor") else []
        )
    if address and name in (DASHBOARD_COMMANDS if dashboard else JOINING_COMMANDS):
        words += ["--address", address]
    return shlex.join([PROGRAM, name, *words])


def _absolute(storage: str | None) -> str | None:
    """The storage as an absolute path, or as its URI."""
    if not storage or ("://" in storage and not storage.startswith("file://")):
        return storage
    return str(Path(storage.removeprefix("file://")).expanduser().absolute())
