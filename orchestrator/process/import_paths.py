"""Where processes of a sweep find this code: nothing that lies in the current folder takes the place of another module."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from importlib.machinery import PathFinder
from pathlib import Path

import orchestrator

JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # in the environment of a job's driver
ROOT = Path(str(orchestrator.__file__)).absolute().parent.parent  # holds `orchestrator` and `trainables`


class WorkerFolders(list[str]):
    """Folders before all modules of Ray's workers: that of this code where it is not installed, and no other.

    The driver of a job adds none: each node has its own copy of what the job brought, which Ray puts there.
    Ray adds the driver's current folder by `extend`.
    """

    def __init__(self) -> None:
        super().__init__([] if JOB in os.environ or _is_installed() else [str(ROOT)])

    def extend(self, folders: Iterable[str]) -> None:
        """Leaves them as they are."""


def _is_installed() -> bool:
    """Whether Python finds this very code without the current folder."""
    here = str(Path.cwd())
    folders = [folder for folder in sys.path if folder not in ("", here)]
    found = [PathFinder.find_spec("trainables", folders)]
    found += [finder.find_spec("trainables", None) for finder in sys.meta_path if finder is not PathFinder]
    origin = next((spec.origin for spec in found if spec is not None), None)
    return origin is not None and Path(origin).parent.parent.resolve() == ROOT.resolve()
