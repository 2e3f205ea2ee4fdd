"""Which code made a result: told beside it, part of no key. Read by: sweep.py, foreground.py."""

from __future__ import annotations

import subprocess
from importlib.metadata import version
from pathlib import Path


def source_revision() -> str:
    """Git revision of this code where it runs from a checkout, else the installed version."""
    folder = Path(__file__).resolve().parent.parent
    if (folder / ".git").exists():
        asked = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        try:
            answer = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=5)
            return answer.stdout.strip()
        except (OSError, subprocess.SubprocessError):
            pass
    return version("drive-sweep")
