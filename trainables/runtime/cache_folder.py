"""The node's cache folder for decoded data sets, also for users without a writable home folder."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

from trainables.errors import StorageError

log = logging.getLogger(__name__)
VARIABLE = "DRIVE_SWEEP_CACHE"


def cache_folder() -> Path:
    """DRIVE_SWEEP_CACHE, else drive-sweep in the user's cache folder; where that is not writable, a private temporary folder.

    Raises:
        StorageError: DRIVE_SWEEP_CACHE, or the temporary folder, is not writable.
    """
    configured = os.environ.get(VARIABLE)
    if configured:
        folder = Path(configured)
        if problem := _write_problem(folder):
            raise StorageError(
                f"{VARIABLE} must be a folder that can be written, got {configured!r}: {problem}", "give another"
            )
        return folder
    usual = _usual_folder()
    if usual is None:
        return _temporary("~", "there is no home folder")
    problem = _write_problem(usual)
    return _temporary(str(usual), problem) if problem else usual


def _usual_folder() -> Path | None:
    """drive-sweep below XDG_CACHE_HOME or ~/.cache; None where there is no home folder."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    try:
        # The XDG specification ignores relative paths.
        base = Path(configured) if configured.startswith("/") else Path("~/.cache").expanduser()
    except RuntimeError:  # a user without a name and without HOME
        return None
    return base / "drive-sweep"


def _temporary(unwritable: str, problem: str) -> Path:
    """A folder of this user below the temporary folder; logged once, for this process and its children."""
    folder = Path(tempfile.gettempdir(), f"drive-sweep-cache-{os.getuid()}")
    second_problem = _write_problem(folder, mode=0o700)
    if not second_problem and folder.lstat().st_uid != os.getuid():
        second_problem = "it belongs to another user"
    if second_problem:
        raise StorageError(
            f"{VARIABLE} must be a folder that can be written, since {unwritable} ({problem}) and {folder} ({second_problem}) "
            "cannot",
            "set it",
        )
    log.warning(
        "the cache %s cannot be written (%s); data are kept in %s, %s names another", unwritable, problem, folder, VARIABLE
    )
    os.environ[VARIABLE] = str(folder)
    return folder


def _write_problem(folder: Path, mode: int = 0o777) -> str:
    """Why no file can be created in a folder, which is created if missing; empty if one can."""
    try:
        folder.mkdir(mode=mode, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return error.strerror or str(error)
