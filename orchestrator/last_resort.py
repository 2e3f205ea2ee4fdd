"""A driver that was told to end ends in time, whatever hangs: a storage, a tracking server, Ray.

Whoever sends a signal kills before long, and with less warning. What is missing then the next run makes up. Read by: sweep.py.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Self

END_S = 18.0


class LastResort:
    """Ends the process END_S after `begin`, unless the block has ended by then."""

    def __init__(self) -> None:
        self._ended = threading.Event()

    def begin(self, number: int) -> None:
        threading.Thread(target=self._end, args=(number,), name="last resort", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def _end(self, number: int) -> None:
        if not self._ended.wait(END_S):
            told = "drive-sweep: the storage or the tracking server does not answer; ending without it, `resume` continues"
            print(told, file=sys.stderr, flush=True)
            os._exit(128 + number)
