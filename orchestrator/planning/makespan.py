"""When the stages that are left will have ended, if each takes a given time: the order of the queue, played through."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Waiting:
    """A trial that has not begun.

    Attributes:
        seconds: that it will take.
        warmup: key of the warm-up that it waits for; empty if it waits for none.
        share: of that warm-up, after which its snapshot is there.
    """

    seconds: float
    warmup: str = ""
    share: float = 1.0


def makespan(slots: int, running: Mapping[str, float], warmups: Mapping[str, float], trials: Sequence[Waiting]) -> float:
    """Seconds until everything has ended.

    Args:
        running: seconds that each running stage still takes; its trials wait for a warm-up among them in full.
        warmups: seconds of those that have not begun, in their order.
        trials: in their order.
    """
    free = list(running.values()) + [0.0] * max(0, slots - len(running))
    heapq.heapify(free)
    begins = dict.fromkeys(running, 0.0)
    lasts = dict(running)
    for key, seconds in warmups.items():
        begins[key], lasts[key] = free[0], seconds
        heapq.heapreplace(free, free[0] + seconds)
    ready, blocked = [], []
    for order, trial in enumerate(trials):
        if trial.warmup in begins:
            blocked.append((begins[trial.warmup] + trial.share * lasts[trial.warmup], order))
        else:
            ready.append(order)
    heapq.heapify(blocked)  # `ready` is in order, and so a heap already
    while ready or blocked:
        now = free[0]
        while blocked and blocked[0][0] <= now:
            heapq.heappush(ready, heapq.heappop(blocked)[1])
        if ready:
            heapq.heapreplace(free, now + trials[heapq.heappop(ready)].seconds)
        else:
            heapq.heapreplace(free, blocked[0][0])
    return max(free, default=0.0)
