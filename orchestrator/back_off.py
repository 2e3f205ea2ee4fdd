"""How long to wait before the next try."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BackOff:
    """Delays in seconds after the first, second, ... failure; the last one stays."""

    delays_s: tuple[float, ...]

    def delay_s(self, failures: int) -> float:
        """Seconds to wait after this many failures in a row, at least one."""
        return self.delays_s[min(failures, len(self.delays_s)) - 1]
