"""Marks that say what a test starts: derived from the code that it reaches, and held true by a guard.

The guard is an audit hook of the interpreter. During a test without any of the marks it fails whatever starts a process or
opens a port, in the test, in its fixtures or in the code under test.
"""

from __future__ import annotations

import inspect
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from multiprocessing.process import BaseProcess
from types import CodeType, ModuleType
from typing import Any

import pytest

MARKS = ("process", "server", "ray")
STARTERS = {
    "subprocess.run": "process",
    "subprocess.Popen": "process",
    "subprocess.check_output": "process",
    "multiprocessing.context.BaseContext.get_context": "process",
    "posix.fork": "process",
    "pty.fork": "process",
    "tests.support.s3_server.s3_server": "server",
    "tests.support.tracking_server.tracking_server": "server",
    "tests.support.fake_jobs_api.serving": "server",
    "tests.support.ray_nodes.RayNodes": "ray",
    "orchestrator.cluster.connection.connect_to_cluster": "ray",
    "orchestrator.process.child.ask": "process",
    "orchestrator.api.running.run": "ray",
    "tests.support.browser.running_chromium": "process",
    "tests.chaos.proxy.proxy_of": "server",
    "tests.chaos.ground.Ground": "ray",
}
COMMANDS = {"tests.support.cli.drive_sweep", "tests.support.cli.start", "tests.support.cli.ask"}
COMMANDS_WITH_RAY = {"run", "resume", "doctor"}
EVENTS = {
    "subprocess.Popen",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.system",
    "multiprocessing.Process.start",
    "socket.bind",
}
# Facts of the machine, its fonts and the revision: libraries ask once in a process, in whichever test comes first.
HARMLESS_PROGRAMS = {"git", "uname", "ldconfig", "lscpu", "fc-list"}
HARMLESS_ADDRESS = ("::1", 0)  # urllib3 tries at its import whether there is IPv6


@cache
def marks_of(function: Callable[..., Any]) -> set[str]:
    """What a function starts, itself or through helpers in tests/."""
    marks: set[str] = set()
    queue, seen = [function], set()
    while queue:
        function = inspect.unwrap(queue.pop())
        if not inspect.isfunction(function) or function in seen:
            continue
        seen.add(function)
        constants: set[Any] = set()
        for code in _nested(function.__code__):
            constants |= {each for each in code.co_consts if isinstance(each, str)}
            for value in _globals_in(code, function.__globals__):
                name = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"
                if name in COMMANDS:
                    marks.add("process")
                    marks |= {"ray"} if constants & COMMANDS_WITH_RAY else set()
                elif name in STARTERS:
                    marks.add(STARTERS[name])
                elif name.startswith("tests."):
                    queue += vars(value).values() if inspect.isclass(value) else [value]
    return marks


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def _globals_in(code: CodeType, scope: dict[str, Any]) -> Iterator[Any]:
    """The values of global names, and of the names of modules among them."""
    for name in code.co_names:
        value = scope.get(name)
        if isinstance(value, ModuleType):
            yield from (vars(value).get(attribute) for attribute in code.co_names)
        else:
            yield value


class Guard:
    """Fails what starts a process or opens a port while it is on."""

    def __init__(self) -> None:
        self.attempts: list[str] = []
        self._test = ""
        self._older_threads: set[int | None] = set()
        sys.addaudithook(self._audit)

    @contextmanager
    def watch(self, test: str) -> Iterator[None]:
        self._older_threads = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}
        self._test = test
        try:
            yield
        finally:
            self._test = ""

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._test or event not in EVENTS or threading.get_ident() in self._older_threads:
            return
        if event == "socket.bind" and (isinstance(arguments[1], str | bytes) or arguments[1] == HARMLESS_ADDRESS):
            return
        if event == "subprocess.Popen" and os.path.basename(arguments[0] or "") in HARMLESS_PROGRAMS:
            return
        self.attempts.append(f"{self._test} has none of the marks {', '.join(MARKS)}; {event}{arguments!r:.200}")
        pytest.fail(self.attempts[-1])


def audit_multiprocessing() -> None:
    """Raises an audit event at the start of a process by multiprocessing, which has none for `spawn`."""
    start = BaseProcess.start

    def audited(self: BaseProcess) -> None:
        sys.audit("multiprocessing.Process.start", self.name)
        start(self)

    BaseProcess.start = audited  # type: ignore[method-assign]
