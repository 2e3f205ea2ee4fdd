"""Where a command's words go: answers to stdout, all else to stderr. A reader that has gone ends no sweep.

With --json, stdout holds the answer alone: what a user's module, a library in C or a child process prints meanwhile goes to
stderr.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

READER_GONE = (errno.EPIPE, errno.EIO)  # a closed pipe, a terminal that was closed
STDOUT = "standard output"

_answers: TextIO | None = None  # the stream of answers while stdout itself leads to stderr


class _Output(io.FileIO):
    """A file descriptor whose reader may go: what is written later is dropped.

    Attributes:
        lossy: whether other errors count as a reader that has gone, as on stderr; else they are raised once.
        lost: nothing more can be written.
    """

    def __init__(self, descriptor: int, lossy: bool) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self.lossy = lossy
        self.lost = False

    def write(self, content: Any, /) -> int:
        if not self.lost:
            try:
                return super().write(content) or 0
            except OSError as error:
                self.lost = True
                if error.errno not in READER_GONE and not self.lossy:
                    raise OSError(error.errno, error.strerror, STDOUT) from error
        return memoryview(content).nbytes


def prepare_streams() -> None:
    """Replaces sys.stdout and sys.stderr by streams that outlive their readers and can write any text.

    Standard streams that are closed lead nowhere from now on, since the next file that is opened would take their place.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    sys.stdout = _text(1, sys.stdout)
    sys.stderr = _text(2, sys.stderr)


def answer(text: str, end: str = "\n") -> None:
    """Prints what the command was asked for."""
    print(text, file=_answers or sys.stdout, end=end)


@contextmanager
def reserve_stdout(wanted: bool) -> Iterator[None]:
    """While the block lasts, only `answer` writes to stdout; all else that is printed there goes to stderr."""
    global _answers
    if not wanted:
        yield
        return
    before, saved = sys.stdout, None
    before.flush()
    if _descriptor(before) == 1:
        saved = os.dup(1)  # not inherited by children
        os.dup2(2, 1)
        _answers = _text(saved, before)
    else:
        _answers = before
    sys.stdout = sys.stderr
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stdout = before
        stream, _answers = _answers, None
        if saved is not None:
            try:
                stream.flush()
            finally:
                os.dup2(saved, 1)
                os.close(saved)


def reader_gone() -> bool:
    """Whether nobody reads stdout any more."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return isinstance(raw, _Output) and raw.lost


def _text(descriptor: int, like: TextIO | None) -> TextIO:
    """A text stream on the descriptor, in the encoding of another; what that cannot encode is written as an escape."""
    terminal = os.isatty(descriptor)
    return io.TextIOWrapper(
        io.BufferedWriter(_Output(descriptor, lossy=descriptor == 2)),
        encoding=getattr(like, "encoding", None) or "utf-8",
        errors="backslashreplace",
        line_buffering=terminal or descriptor == 2,
    )


def _descriptor(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, AttributeError, ValueError):
        return None
