"""How long users' code may give no sign of life before it counts as hung, where no earlier duration tells."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

SHORTEST_S = 600.0
START_S = 120.0  # at least, for a new process: it imports, and reads its data
FUNCTION_S = 3600.0  # at least, for a function that reads a whole data set, and so gives no signs of life
SIGNS_OF_LIFE = 4  # that are asked for in the time after which something counts as hung
LONGEST_GAP_S = 5.0  # between two looks at the clock
HINT = "correct it, or give it more time with stage_timeout in the sweep file"


def limit_s(stage_timeout: float | None, least_s: float = START_S) -> float:
    """How long a new process may say nothing.

    Args:
        stage_timeout: of the sweep file.
    """
    return max(least_s, stage_timeout or SHORTEST_S)


def hang(silent_s: float, state: str) -> str:
    """What is said of a process that hung.

    Args:
        state: what it did, and where.
    """
    return f"a hang: nothing happened for {silent_s:.0f} s, {state}"


@dataclass
class AttentiveClock:
    """Seconds in which this process could listen, for whoever reads the clock all the time.

    A longer gap between two looks counts as LONGEST_GAP_S: this process was stopped or busy, and what was said meanwhile is
    still to be heard.
    """

    _seconds: float = 0.0
    _seen: float = field(default_factory=time.monotonic)

    def __call__(self) -> float:
        now = time.monotonic()
        self._seconds += min(now - self._seen, LONGEST_GAP_S)
        self._seen = now
        return self._seconds
