"""Runs work in a child process that needs PyTorch or a custom module, which the driver does not import.

The child's module has a `main` that calls `serve`. Request and response are JSON, on the child's standard input and output;
whatever else it prints goes to its standard error.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from threading import Thread
from typing import Any

from orchestrator.process.credentials import environment_without_login
from orchestrator.process.import_paths import ROOT

PARENT_POLL_INTERVAL_S = 0.5
CHILD = "import sys; sys.path.insert(0, sys.argv[1]); from importlib import import_module; import_module(sys.argv[2]).main()"


class ChildError(Exception):
    """The child exited with this code and without a response; the message is the last line that it printed, if kept."""

    def __init__(self, code: int, last_line: str) -> None:
        super().__init__(last_line or f"its process exited with {code}")
        self.code = code


def ask(module: str, request: Any, keep_errors: bool = False) -> Any:
    """The response of the module's `main` to a request; the child has no login for MLflow.

    Args:
        keep_errors: keep the child's output for the error message instead of showing it.

    Raises:
        ChildError: it exited without a response.
    """
    child = subprocess.run(
        [sys.executable, "-P", "-c", CHILD, str(ROOT), module],
        input=json.dumps(request),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if keep_errors else None,
        env=environment_without_login(),
        text=True,
        check=False,
    )
    if child.returncode:
        raise ChildError(child.returncode, ((child.stderr or "").strip().splitlines() or [""])[-1])
    return json.loads(child.stdout)


def serve(respond: Callable[[Any], Any]) -> None:
    """The child's side: responds to its one request, and exits early if its parent is gone."""
    Thread(target=_exit_with_parent, args=(os.getppid(),), name="parent", daemon=True).start()
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    json.dump(respond(json.load(sys.stdin)), output)
    output.flush()


def stop_with_parent() -> None:
    """Makes this process stop as at a request to stop, with checkpoints, when its parent is gone."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_POLL_INTERVAL_S)
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=watch, name="parent", daemon=True).start()


def _exit_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_INTERVAL_S)
    os._exit(1)
