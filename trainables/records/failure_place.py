"""Where an error arose: the innermost line of the user's files, else of this project, not of a library that they called.

Place and traceback of another worker's error are what that worker says: this one has only waited for it.
"""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path
from types import FrameType

from trainables.custom.imports import PACKAGE, is_from_user
from trainables.errors import OtherWorkerError

LIBRARIES = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))


def place_of(error: BaseException) -> str:
    """FILE:LINE, the file named below the folder of its module; empty if no such line took part.

    A line of the user's counts before one of this project that it has called; of an error that was raised from another one, the
    place of that.
    """
    if isinstance(error, OtherWorkerError):
        return error.place
    if error.__cause__ is not None and (place := place_of(error.__cause__)):
        return place
    frames = [(frame, line) for frame, line in reversed(list(traceback.walk_tb(error.__traceback__)))]
    ours = [(frame, line) for frame, line in frames if _package(frame) == PACKAGE]
    users = [(frame, line) for frame, line in frames if _package(frame) != PACKAGE and not _is_of_library(frame)]
    for frame, line in (users or ours)[:1]:
        return f"{_name_of(frame)}:{line}"
    return ""


def traceback_of(error: BaseException) -> str:
    """Its traceback as Python prints it."""
    if isinstance(error, OtherWorkerError) and error.traceback:
        return error.traceback
    return "".join(traceback.format_exception(error))


def _package(frame: FrameType) -> str:
    return _module(frame).partition(".")[0]


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _is_of_library(frame: FrameType) -> bool:
    return not is_from_user(_module(frame)) and frame.f_code.co_filename.startswith(("<", *LIBRARIES))


def _name_of(frame: FrameType) -> str:
    """The file of a frame as its module is named, or its last part where that is a script."""
    if _package(frame) == PACKAGE or is_from_user(_module(frame)):
        return f"{_module(frame).replace('.', '/')}.py"
    return Path(frame.f_code.co_filename).name
