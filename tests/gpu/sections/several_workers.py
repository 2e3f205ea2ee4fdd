"""One trial by two processes, each on its own device."""

from __future__ import annotations

from collections.abc import Iterator

from tests.gpu.rows import Bench, Row, SkippedError


def measure(bench: Bench) -> Iterator[Row]:
    raise SkippedError("this version trains a trial in one process")
    yield
