"""How a sweep ends whose storage can take no more: in order, and with what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.command_line import command
from orchestrator.errors import SetupError
from orchestrator.execution.driver import Driver
from orchestrator.state.sweep_folder import SweepFolder
from trainables.errors import StorageFullError


@contextmanager
def full_noted(driver: Driver) -> Iterator[None]:
    """Stops the sweep, and lets it end in order, if the driver's own writes find no room."""
    try:
        yield
    except StorageFullError as error:
        driver.on_full(error)


@contextmanager
def full_explained(folder: SweepFolder) -> Iterator[None]:
    """Turns a StorageFullError into the SetupError that says how the sweep goes on."""
    try:
        yield
    except StorageFullError as error:
        room = f"free space there, or make it writable (`{command('gc')}` shows what no sweep needs)"
        raise SetupError(error.message, f"{room}, then `{command('resume', folder.name)}`", code="storage-full") from error
