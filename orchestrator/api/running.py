"""`orchestrator.run`: runs a sweep from Python, in a process of its own.

So it works in a notebook, in any thread, and beside a Ray that this process uses, which it neither joins nor ends. The process
is the command `run`; what it says appears on this process' standard error. It stops, with checkpoints, when this one ends.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from orchestrator.api.sweep import Sweep
from orchestrator.command_line import INVOCATION_VARIABLE, PROGRAM
from orchestrator.errors import (
    EXIT_BUG,
    EXIT_DONE,
    EXIT_ENVIRONMENT,
    EXIT_TRIALS_FAILED,
    EXIT_USER,
    DriverBugError,
    SetupError,
    SweepError,
    UserError,
    split_code,
)
from orchestrator.process.import_paths import ROOT
from orchestrator.spec.loader import load_spec
from orchestrator.state.sweep_folder import open_sweep
from orchestrator.storage.factory import open_storage

COMMAND = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from orchestrator.process.child import stop_with_parent; "
    "stop_with_parent(); from orchestrator.cli import main; sys.exit(main())"
)
ERRORS: dict[int, type[SweepError]] = {EXIT_USER: UserError, EXIT_ENVIRONMENT: SetupError}
SAYS = f"{PROGRAM}: "  # before an error that ends a command


def run(
    spec: Mapping[str, Any] | str | os.PathLike[str],
    *,
    storage: str | None = None,
    settings: Mapping[str, Any] | None = None,
    address: str | None = None,
    quiet: bool = False,
    accept_changed: Sequence[str] = (),
    recompute: bool = False,
) -> Sweep:
    """Runs a sweep to its end, or continues it, and returns it; relative paths are those of the current folder.

    Trials that fail raise nothing: `Sweep.trials()` shows their state and error.

    Args:
        spec: what a sweep file holds, as a dict or as YAML text of several lines; or the path of a file, or a preset's name.
        storage: instead of the specification's.
        settings: dotted key of the sweep file -> value, instead of the specification's, such as {"training.epochs": 4}.
        address: HOST:PORT of a Ray cluster to join; by default RAY_ADDRESS, else a Ray of its own on this machine.
        quiet: no progress.
        accept_changed: files of yours that have changed since trials were finished with them, which stay.
        recompute: archive the results of earlier runs, and compute them again.

    Raises:
        SweepError: what would end the command with a message, such as an invalid specification, or an interruption from
            elsewhere (`stop`).
        KeyboardInterrupt: after an interruption here; checkpoints are written first. Running it again continues.
    """
    values = {**(settings or {}), **({} if storage is None else {"storage": storage})}
    options = [f"{key}={json.dumps(value)}" for key, value in values.items()]
    with _file_of(spec) as file:
        checked = load_spec(file, options)
        words = ["run", file, *(word for option in options for word in ("--set", option))]
        words += ["--address", address] if address else []
        words += ["--quiet"] if quiet else []
        words += [word for file in accept_changed for word in ("--accept-changed", file)]
        words += ["--recompute"] if recompute else []
        code, last = _run_command(words)
    if code not in (EXIT_DONE, EXIT_TRIALS_FAILED):
        _fail(code, last, checked.name)
    return Sweep(open_sweep(open_storage(checked.storage), checked.name))


@contextmanager
def _file_of(spec: Mapping[str, Any] | str | os.PathLike[str]) -> Iterator[str]:
    """The path of a file with the specification, or a preset's name."""
    if not isinstance(spec, Mapping) and "\n" not in os.fspath(spec):
        yield os.fspath(spec)
        return
    text = json.dumps(spec, indent=1) if isinstance(spec, Mapping) else str(spec)
    with tempfile.TemporaryDirectory(prefix="drive-sweep-") as folder:
        file = Path(folder, "spec.yaml")
        file.write_text(text)
        yield str(file)


def _run_command(words: list[str]) -> tuple[int, str]:
    """Runs a command to its end: its exit code and its last message. Raises KeyboardInterrupt after an interruption here."""
    environment = {name: value for name, value in os.environ.items() if name != INVOCATION_VARIABLE}
    output, interrupted = _Output(), False
    with subprocess.Popen(
        [sys.executable, "-P", "-c", COMMAND, str(ROOT), *words],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # else Ctrl-C in a terminal would reach it twice
    ) as child:
        assert child.stderr is not None
        while child.returncode is None:
            try:
                for line in child.stderr:
                    output.add(line)
                child.wait()
            except KeyboardInterrupt:
                interrupted = True
                child.send_signal(signal.SIGINT)
    if interrupted or child.returncode in (EXIT_DONE, EXIT_TRIALS_FAILED):
        output.show_held()
    if interrupted:
        raise KeyboardInterrupt
    return child.returncode, output.message


class _Output:
    """Shows what a command says, but for a last message of one line, which is raised.

    Attributes:
        message: the last one, with the lines that followed it.
    """

    def __init__(self) -> None:
        self.message = ""
        self._held = ""

    def add(self, line: str) -> None:
        self.show_held()
        if line.startswith(SAYS):
            self.message = self._held = line
        else:
            self.message += line if self.message else ""
            print(line, end="", file=sys.stderr, flush=True)

    def show_held(self) -> None:
        if self._held:
            print(self._held, end="", file=sys.stderr, flush=True)
        self._held = ""


def _fail(code: int, last: str, sweep: str) -> NoReturn:
    message, name = split_code(last.removeprefix(SAYS).rstrip())
    if code == EXIT_BUG:
        raise DriverBugError(message, "", traceback="")
    if code in ERRORS:
        raise ERRORS[code](message, code=name)
    raise SweepError(
        f"sweep {sweep!r} was interrupted (exit code {code})", "run it again to continue", code="sweep-interrupted"
    )
