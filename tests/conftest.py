"""What every test shares: a private cache folder, one PyTorch thread, and no commands that outlive it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import settings

from orchestrator import command_line
from orchestrator.process.setup import END_SIGNALS
from tests import ROOT
from tests.support.cli import kill_all, started
from tests.support.marks import MARKS, Guard, audit_multiprocessing, marks_of
from trainables.custom.imports import COPIES, PACKAGE

# Tests of properties: 100 examples, or as many as their own command asks for (DRIVE_SWEEP_EXAMPLES=10000 pytest -k ...).
settings.register_profile("drive-sweep", max_examples=int(os.environ.get("DRIVE_SWEEP_EXAMPLES", "100")), deadline=None)
settings.load_profile("drive-sweep")


# Files of tests that take a minute or more, the longest first: they begin first, and the short ones fill what is left.
LONG = (
    "integration/test_sweep.py",
    "integration/test_ray_nodes.py",
    "chaos/test_rounds.py",
    "integration/test_ray_cluster.py",
    "orchestrator/diagnostics/test_doctor.py",
    "integration/test_tracking_server.py",
    "trainables/custom/test_trials.py",
    "orchestrator/preflight/test_networks.py",
)


audit_multiprocessing()
guard = Guard()
# Ignored in a script's background and under nohup, where tests of these signals need them too.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)


def pytest_itemcollected(item: pytest.Item) -> None:
    if isinstance(item, pytest.Function):
        fixtures = [each.func for used in item._fixtureinfo.name2fixturedefs.values() for each in used]
        for mark in set().union(*map(marks_of, [item.function, *fixtures])):
            item.add_marker(mark)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("long") and not os.environ.get("DRIVE_SWEEP_LONG"):
        pytest.skip("takes most of a minute: `make test-long` runs it")
    if item.get_closest_marker("extended") and os.environ.get("DRIVE_SWEEP_BRIEF"):
        pytest.skip("left out of a brief check: `make test` runs it")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {ROOT / "tests" / name: place for place, name in enumerate(LONG)}
    assert all(path.exists() for path in places)
    items.sort(key=lambda item: places.get(item.path, len(LONG)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    if any(item.get_closest_marker(mark) for mark in MARKS):
        return (yield)
    with guard.watch(item.nodeid):
        return (yield)


@pytest.fixture(autouse=True, scope="session")
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DRIVE_SWEEP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@contextmanager
def environment_as_before() -> Iterator[None]:
    """Undoes how commands prepare this process for Ray and for signals, and find users' modules or a trial's copies."""
    before, folders, running = dict(os.environ), list(sys.path), command_line._running
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, *END_SIGNALS)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    command_line._running = running
    for name in [name for name in sys.modules if name.startswith(f"{PACKAGE}.{COPIES}")]:
        del sys.modules[name]
    if added := set(sys.path) - set(folders):
        for name, module in list(sys.modules.items()):
            if os.path.dirname(vars(module).get("__file__") or "") in added:
                del sys.modules[name]
        sys.path[:] = folders
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(autouse=True, scope="module")
def environment_of_modules() -> Iterator[None]:
    """What the fixtures of a module leave behind, no other module may inherit."""
    with environment_as_before():
        yield


@pytest.fixture(autouse=True)
def environment_of_tests(environment_of_modules: None) -> Iterator[None]:
    with environment_as_before():
        yield


@pytest.fixture(autouse=True)
def nothing_started() -> Iterator[None]:
    """Fails a test whose code under test swallowed the guard's failure."""
    yield
    attempts = list(guard.attempts)
    guard.attempts.clear()
    assert not attempts, attempts


@pytest.fixture(autouse=True, scope="session")
def disk_not_waited_for() -> Iterator[None]:
    """Files need not outlast the machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """A failed test must not leave a sweep that takes the machine from the next one."""
    yield
    for process in started:
        if process.poll() is None:
            kill_all(process)
    started.clear()
