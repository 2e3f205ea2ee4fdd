"""The output of commands: answers on stdout, everything else on stderr. A sweep survives the loss of its reader.

With --json, stdout has nothing but the answer: what a custom module, a C library or a child process prints goes to stderr.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

READER_GONE = (errno.EPIPE, errno.EIO)  # of a closed pipe and a closed terminal
STDOUT = "standard output"

_answers: TextIO | None = None  # the stream of answers while stdout is redirected to stderr


class _Output(io.FileIO):
    """A file descriptor that drops what is written after its reader is gone.

    Attributes:
        lossy: treat every error like a reader that is gone, as on stderr; otherwise other errors are raised once.
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
    """Replaces sys.stdout and sys.stderr by streams that survive the loss of their readers and can write any text.

    Closed standard streams lead to /dev/null, since the next file that is opened would take their descriptors.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    sys.stdout = _text(1, sys.stdout)
    sys.stderr = _text(2, sys.stderr)


def answer(text: str, end: str = "\n") -> None:
    """Prints the answer of the command to stdout."""
    print(text, file=_answers or sys.stdout, end=end)


@contextmanager
def reserve_stdout(active: bool) -> Iterator[None]:
    """If `active`, only `answer` writes to stdout during the block; everything else printed there goes to stderr."""
    global _answers
    if not active:
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
    """Whether the reader of stdout is gone."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return isinstance(raw, _Output) and raw.lost


def _text(descriptor: int, like: TextIO | None) -> TextIO:
    """A text stream on the descriptor, in the encoding of `like`; characters that it lacks are written as escapes."""
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
