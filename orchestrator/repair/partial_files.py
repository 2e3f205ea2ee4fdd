"""Files that a process was writing when it was killed: hidden, and never read by anybody."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

from orchestrator.housekeeping.garbage import FOLDERS, HOUR_S, PARTIAL
from orchestrator.repair.mismatch import Mismatch, Scope
from orchestrator.storage.layout import ASIDE, set_aside


def partial_files(scope: Scope) -> Iterator[Mismatch]:
    """Half-written files that are older than any live writer: an hour."""
    latest = time.time() - HOUR_S
    for folder in FOLDERS:
        for path, facts in scope.storage.files(folder).items():
            parts = path.split("/")
            if ASIDE in parts or not PARTIAL.fullmatch(parts[-1]) or facts.modified > latest:
                continue
            name = parts[1]
            if name not in scope.running and scope.is_free(name):
                yield Mismatch(
                    kind="half-written file",
                    place=path,
                    remedy=f"moves it to {folder}/{ASIDE}",
                    mend=partial(set_aside, scope.storage, path),
                    sweeps=frozenset({name}) if folder == "sweeps" else scope.users_of(name),
                )
