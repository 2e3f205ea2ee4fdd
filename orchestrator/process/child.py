"""Runs work in a child process that needs PyTorch or a custom module, which the driver does not import.

The child's module has a `main` that calls `serve`. Request and response are JSON, on the child's standard input and output;
whatever else it prints goes to its standard error. The first line of its output is the descriptor of its stacks, and an empty
line is a sign of life: a child that gives none for too long is ended.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import Any

from orchestrator.process.credentials import environment_without_login
from orchestrator.process.hung_process import end_hung_process
from orchestrator.process.import_paths import ROOT
from orchestrator.process.patience import SHORTEST_S, SIGNS_OF_LIFE, AttentiveClock, hang
from trainables.runtime.heartbeat import INTERVAL_S, heard_by
from trainables.runtime.stacks import UNKNOWN, stacks_on_signal

PARENT_POLL_INTERVAL_S = 0.5
POLL_S = 0.5
READ_BYTES = 1 << 16
END_TIMEOUT_S = 10.0  # to exit after the response
CHILD = "import sys; sys.path.insert(0, sys.argv[1]); from importlib import import_module; import_module(sys.argv[2]).main()"


class ChildError(Exception):
    """The child exited with this code and without a response; the message is the last line that it printed, if kept."""

    def __init__(self, code: int, last_line: str) -> None:
        super().__init__(last_line or f"its process exited with {code}")
        self.code = code


class HungChildError(ChildError):
    """The child said nothing for too long, and was ended; the message says where it was.

    Attributes:
        stacks: of its threads.
    """

    def __init__(self, silent_s: float, state: str, stacks: str) -> None:
        super().__init__(-signal.SIGKILL, hang(silent_s, state))
        self.stacks = stacks


def ask(module: str, request: Any, keep_errors: bool = False, limit_s: float = SHORTEST_S) -> Any:
    """The response of the module's `main` to a request; the child has no login for MLflow.

    Args:
        keep_errors: keep the child's output for the error message instead of showing it.
        limit_s: seconds without a sign of life after which the child is ended.

    Raises:
        ChildError: it exited without a response.
        HungChildError: it gave no sign of life.
    """
    with tempfile.TemporaryFile() as question, tempfile.TemporaryFile() as errors:
        question.write(json.dumps({"signs_s": min(INTERVAL_S, limit_s / SIGNS_OF_LIFE), "request": request}).encode())
        question.seek(0)
        child = subprocess.Popen(
            [sys.executable, "-P", "-c", CHILD, str(ROOT), module],
            stdin=question,
            stdout=subprocess.PIPE,
            stderr=errors if keep_errors else None,
            env=environment_without_login(),
        )
        try:
            response = _response(child, limit_s)
            with suppress(subprocess.TimeoutExpired):
                child.wait(END_TIMEOUT_S)
        finally:
            child.kill()
            code = child.wait()
        if response is None:
            errors.seek(0)
            lines = errors.read().decode(errors="replace").strip().splitlines()
            raise ChildError(code, lines[-1] if lines else "")
        return json.loads(response)


def _response(child: subprocess.Popen[bytes], limit_s: float) -> bytes | None:
    """The first line after that of the descriptor which is not empty; None if the child has exited before."""
    assert child.stdout is not None
    clock = AttentiveClock()
    written, heard = b"", clock()
    while True:
        if select.select([child.stdout], [], [], POLL_S)[0]:
            piece = os.read(child.stdout.fileno(), READ_BYTES)
            written, heard = written + piece, clock()
            if not piece:
                return None
            if b"\n" in piece and (response := _first_response(written)):
                return response
        elif child.poll() is not None:  # a process that it has started may still hold its output
            return _first_response(written)
        elif clock() - heard > limit_s:
            raise _end(child, int(written.partition(b"\n")[0] or UNKNOWN), limit_s)


def _first_response(written: bytes) -> bytes | None:
    return next(filter(None, written.split(b"\n")[1:-1]), None)


def _end(child: subprocess.Popen[bytes], descriptor: int, limit_s: float) -> HungChildError:
    """The error of a child that hangs; the child is gone."""
    if descriptor == UNKNOWN:
        return HungChildError(limit_s, "where is not known", "")
    hung = end_hung_process(child.pid, descriptor)
    return HungChildError(limit_s, hung["state"], hung["stacks"])


def serve(respond: Callable[[Any], Any]) -> None:
    """The child's side: responds to its one request, and exits early if its parent is gone."""
    Thread(target=_exit_with_parent, args=(os.getppid(),), name="parent", daemon=True).start()
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def write(line: str) -> None:
        output.write(f"{line}\n")
        output.flush()

    write(str(stacks_on_signal()))
    asked = json.load(sys.stdin)
    with heard_by(lambda: write(""), asked["signs_s"]):
        response = respond(asked["request"])
    write(json.dumps(response))


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
