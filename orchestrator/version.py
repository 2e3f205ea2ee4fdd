"""The version of the code that made a result; it is stored with the result, and is no part of its key."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from importlib.metadata import version

from orchestrator.process.import_paths import ROOT

SHIPPED_REVISION = "REVISION"  # a file in the package of a job, which has no .git


def source_revision() -> str:
    """Git revision of this code where it runs from a checkout or was shipped from one, else the installed version."""
    folder = ROOT.resolve()
    with suppress(OSError):
        return (folder / SHIPPED_REVISION).read_text().strip()
    if (folder / ".git").exists():
        command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        try:
            git = subprocess.run(command, capture_output=True, text=True, check=True, timeout=5)
            return git.stdout.strip()
        except (OSError, subprocess.SubprocessError):
            pass
    return version("drive-sweep")
