"""A question to a process of its own, for work that needs PyTorch or a user's module, which the driver does not import.

The module that is asked has a `main` that calls `serve`. Question and answer are JSON, on standard input and output of the
child; what else it prints there goes to its standard error.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from threading import Thread
from typing import Any

from orchestrator.process.import_paths import ROOT

PARENT_POLL_INTERVAL_S = 0.5
CHILD = "import sys; sys.path.insert(0, sys.argv[1]); from importlib import import_module; import_module(sys.argv[2]).main()"


class ChildError(Exception):
    """The child ended with this code and without an answer; the message is the last line that it printed, if it was kept."""

    def __init__(self, code: int, last_line: str) -> None:
        super().__init__(last_line or f"its process ended with {code}")
        self.code = code


def ask(module: str, question: Any, keep_errors: bool = False) -> Any:
    """The answer of the module's `main`.

    Args:
        keep_errors: what the child prints is kept for the message of an error, and not shown.

    Raises:
        ChildError: it ended without an answer.
    """
    done = subprocess.run(
        [sys.executable, "-P", "-c", CHILD, str(ROOT), module],
        input=json.dumps(question),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if keep_errors else None,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ChildError(done.returncode, ((done.stderr or "").strip().splitlines() or [""])[-1])
    return json.loads(done.stdout)


def serve(answer: Callable[[Any], Any]) -> None:
    """The child's side: answers its one question; it ends with the process that asked."""
    Thread(target=_exit_with_parent, args=(os.getppid(),), name="parent", daemon=True).start()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    json.dump(answer(json.load(sys.stdin)), answers)
    answers.flush()


def _exit_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_INTERVAL_S)
    os._exit(1)
