"""One option for each layer, with the least cost in all, within a budget of time: a knapsack solved by dynamic programming.

SPDY (Frantar and Alistarh, arXiv:2201.13096) chooses a sparsity for each layer in this way; the same program chooses how many
channels a layer keeps within a latency.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BUCKETS = 10_000  # into which a budget is divided
ROUNDING = 1e-9  # of a bucket, by which a time that fills it exactly may seem longer


class InfeasibleBudgetError(ValueError):
    """No choice is within the budget; `least` is the shortest time that there is."""

    def __init__(self, least: float, budget: float) -> None:
        super().__init__(f"the layers take at least {least:.6g}, the budget is {budget:.6g}")
        self.least = least


def cheapest_options(
    times: Sequence[Sequence[float]], costs: Sequence[Sequence[float]], budget: float, buckets: int = BUCKETS
) -> list[int]:
    """For each layer the index of its option: the choice of least cost whose times sum to at most the budget.

    Times are rounded up to whole buckets, so the budget holds for certain, and what is found may leave one bucket for each
    layer unused; the authors round to the nearest, and may exceed the budget. Of equal costs the shorter time is chosen.

    Raises:
        InfeasibleBudgetError: even the fastest options take longer.
    """
    least = sum(min(options) for options in times)
    if budget <= 0 or least > budget:
        raise InfeasibleBudgetError(least, budget)
    width = budget / buckets
    best = np.full(buckets + 1, np.inf)  # by buckets that are used, at most
    best[0] = 0.0
    chosen = []
    for layer_times, layer_costs in zip(times, costs, strict=True):
        steps = [int(np.ceil(time / width - ROUNDING)) for time in layer_times]
        after, choice = np.full(buckets + 1, np.inf), np.full(buckets + 1, -1, dtype=np.int64)
        for option, (step, cost) in enumerate(zip(steps, layer_costs, strict=True)):
            if step <= buckets:
                candidate = np.full(buckets + 1, np.inf)
                candidate[step:] = best[: buckets + 1 - step] + cost
                better = candidate < after
                after[better], choice[better] = candidate[better], option
        best = after
        chosen.append((choice, steps))
    if not np.isfinite(best).any():  # rounding up has used what was left
        raise InfeasibleBudgetError(least, budget)
    used = int(best.argmin())
    options: list[int] = []
    for choice, steps in reversed(chosen):
        option = int(choice[used])
        options.append(option)
        used -= steps[option]
    return options[::-1]
