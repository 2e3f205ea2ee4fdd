"""The node's folder for decoded data sets, also where a user has no home folder that can be written."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

from trainables.errors import StorageError

logger = logging.getLogger(__name__)
VARIABLE = "DRIVE_SWEEP_CACHE"


def cache_folder() -> Path:
    """DRIVE_SWEEP_CACHE, else drive-sweep in the user's cache folder; where that cannot be written, a private temporary one.

    Raises:
        StorageError: DRIVE_SWEEP_CACHE, or the temporary folder, cannot be written.
    """
    given = os.environ.get(VARIABLE)
    if given:
        folder = Path(given)
        if problem := _unwritable(folder):
            raise StorageError(f"{VARIABLE} must be a folder that can be written, got {given!r}: {problem}; give another")
        return folder
    usual = _usual_folder()
    if usual is None:
        return _temporary("~", "there is no home folder")
    problem = _unwritable(usual)
    return _temporary(str(usual), problem) if problem else usual


def write_whole(file: Path, content: bytes) -> None:
    """A process that is lost meanwhile leaves no half of the file; of several that write it at once the last one counts."""
    partial = file.with_suffix(f".{os.getpid()}.partial")
    partial.write_bytes(content)
    os.replace(partial, file)


def _usual_folder() -> Path | None:
    """drive-sweep below XDG_CACHE_HOME or ~/.cache; None where there is no home folder."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    try:
        base = Path(named) if named.startswith("/") else Path("~/.cache").expanduser()  # a relative one is to be ignored
    except RuntimeError:  # a user without a name and without HOME
        return None
    return base / "drive-sweep"


def _temporary(unwritable: str, problem: str) -> Path:
    """A folder of this user alone below the temporary folder; told once, child processes included."""
    folder = Path(tempfile.gettempdir(), f"drive-sweep-cache-{os.getuid()}")
    trouble = _unwritable(folder, mode=0o700)
    if not trouble and folder.lstat().st_uid != os.getuid():
        trouble = "it belongs to another user"
    if trouble:
        raise StorageError(
            f"{VARIABLE} must be a folder that can be written, since {unwritable} ({problem}) and {folder} ({trouble}) cannot; "
            "set it"
        )
    logger.warning(
        "the cache %s cannot be written (%s); data are kept in %s, %s names another", unwritable, problem, folder, VARIABLE
    )
    os.environ[VARIABLE] = str(folder)
    return folder


def _unwritable(folder: Path, mode: int = 0o777) -> str:
    """Why no file can be made in a folder, which is made if need be; empty if one can."""
    try:
        folder.mkdir(mode=mode, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return error.strerror or str(error)
