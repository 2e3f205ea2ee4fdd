"""The marks of a test follow from the code that it reaches; the guard sees what a test without a mark starts."""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any

import pytest

from tests.conftest import guard
from tests.support.cli import drive_sweep
from tests.support.marks import marks_of
from tests.support.ray_nodes import RayNodes
from tests.support.s3_server import s3_server


def plans() -> None:
    drive_sweep("plan", "sweep.yaml")


def runs() -> None:
    drive_sweep("run", "sweep.yaml")


@contextmanager
def storing(folder: Any) -> Iterator[None]:
    with s3_server(folder):
        yield


class Planner:
    def plan(self) -> list[Any]:
        return [each() for each in (plans, starts_nothing)]


def starts_nothing() -> int:
    return sys.maxsize


@pytest.mark.parametrize(
    ("function", "marks"),
    [
        (starts_nothing, set()),
        (plans, {"process"}),
        (runs, {"process", "ray"}),
        (storing, {"server"}),
        (lambda: Planner().plan(), {"process"}),
        (lambda: RayNodes, {"ray"}),
        (lambda: subprocess.run(["true"], check=True), {"process"}),
    ],
)
def test_marks_follow_from_the_code_that_is_reached(function: Callable[..., Any], marks: set[str]) -> None:
    assert marks_of(function) == marks


def bind() -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))


STARTS: list[Callable[[], Any]] = [
    lambda: subprocess.run(["true"], check=True),
    lambda: os.posix_spawn("/bin/true", ["true"], {}),
    lambda: os.fork() or os._exit(0),
    lambda: os.system("true"),
    lambda: multiprocessing.get_context("spawn").Process(target=starts_nothing).start(),
    bind,
]


@pytest.mark.parametrize("start", STARTS)
def test_guard_fails_what_a_test_without_a_mark_starts(start: Callable[[], Any]) -> None:
    with pytest.raises(pytest.fail.Exception, match="has none of the marks"):
        start()
    guard.attempts.clear()


def test_guard_keeps_swallowed_attempts_and_those_of_threads() -> None:
    def swallowed() -> None:
        with suppress(BaseException):
            STARTS[0]()

    thread = Thread(target=swallowed)
    thread.start()
    thread.join()
    swallowed()
    assert len(guard.attempts) == 2
    guard.attempts.clear()
