"""Where the processes of a sweep import this code from; files in the current folder shadow no module."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from importlib.machinery import PathFinder
from pathlib import Path

JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # in the environment of a job's driver
ROOT = Path(__file__).absolute().parents[2]  # holds `orchestrator` and `trainables`


class WorkerFolders(list[str]):
    """The folders that Ray's workers search for modules first: that of this code if it is not installed, and no other.

    The driver of a job adds none, since Ray puts each node's copy of the package there. Ray adds the driver's current folder by
    `extend`.
    """

    def __init__(self) -> None:
        super().__init__([] if JOB in os.environ or _is_installed() else [str(ROOT)])

    def extend(self, folders: Iterable[str]) -> None:
        """Ignores them."""


def _is_installed() -> bool:
    """Whether Python finds this code without the current folder."""
    current = str(Path.cwd())
    folders = [folder for folder in sys.path if folder not in ("", current)]
    specs = [PathFinder.find_spec("trainables", folders)]
    specs += [finder.find_spec("trainables", None) for finder in sys.meta_path if finder is not PathFinder]
    origin = next((spec.origin for spec in specs if spec is not None), None)
    return origin is not None and Path(origin).parent.parent.resolve() == ROOT.resolve()
