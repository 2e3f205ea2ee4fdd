"""The process in which sections run, one after another: a fresh one after a failure, and one that hangs is ended.

A kernel that fails leaves a process in which no other kernel works, and a section must not spoil the next one.
"""

from __future__ import annotations

import gc
import multiprocessing
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

from tests.gpu.rows import Bench, Row, SkippedError, State, failed, skipped

FACTS = "facts"  # a request beside the names of sections
START_S = 120.0  # for the first answer of a process, which imports PyTorch


class Worker:
    """Starts its process when it is asked for something.

    Args:
        sections: the package of their modules.

    Attributes:
        packages: that its processes had loaded at the end of a section.
    """

    def __init__(self, sections: str = "tests.gpu.sections") -> None:
        self.sections = sections
        self.packages: set[str] = set()
        self._process: Any = None
        self._connection: Any = None

    def facts(self, device: str) -> dict[str, Any]:
        """What `machine_facts` returns there.

        Raises:
            RuntimeError: the device is not there, or the process died.
        """
        self._send((FACTS, device))
        answer = self._receive(time.monotonic() + START_S)
        if not isinstance(answer, dict):
            raise RuntimeError(str(answer))
        return answer

    def rows(self, section: str, bench: Bench, limit_s: float) -> Iterator[Row]:
        """The rows of a section, as they come; the last one is FAILED if it raised, its process died, or it took longer."""
        self._send((f"{self.sections}.{section}", bench))
        is_spoilt = False
        while isinstance(answer := self._receive(bench.started + limit_s), Row):
            is_spoilt |= answer.state is State.FAILED
            yield answer
        if isinstance(answer, str):
            yield failed(section.replace("_", " "), answer)
        else:
            self.packages |= answer
        if is_spoilt or isinstance(answer, str):
            self.end()

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
        self._process = self._connection = None

    def _send(self, request: tuple[str, Any]) -> None:
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self._connection, theirs = context.Pipe()
            self._process = context.Process(target=answer_requests, args=(theirs,))
            self._process.start()
            theirs.close()
        self._connection.send(request)

    def _receive(self, until: float) -> Any:
        """What the process sends; as text why it sends nothing."""
        try:
            if self._connection.poll(max(0.0, until - time.monotonic())):
                return self._connection.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            return f"its process died with exit code {self._process.exitcode}"
        return "it did not end in its time, and was ended"


def answer_requests(connection: Connection) -> None:
    """Does what it is asked for until nobody asks any more."""
    from tests.gpu.machine import loaded_packages, machine_facts

    with suppress(EOFError):
        while True:
            name, argument = connection.recv()
            if name == FACTS:
                try:
                    connection.send(machine_facts(argument))
                except Exception as error:
                    connection.send(str(error))
                continue
            for row in rows_of(name, argument):
                connection.send(row)
            connection.send(loaded_packages())
            gc.collect()


def rows_of(module: str, bench: Bench) -> Iterator[Row]:
    """The rows of the section in a module; an error becomes the last one."""
    label = module.rpartition(".")[2].replace("_", " ")
    try:
        yield from import_module(module).measure(bench)
    except SkippedError as reason:
        yield skipped(label, str(reason))
    except Exception as error:
        traceback.print_exc()
        yield failed(label, f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}")
