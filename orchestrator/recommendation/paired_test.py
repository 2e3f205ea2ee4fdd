"""A paired t-test over seeds."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

ALPHA = 0.05  # a p value below it is called significant; intervals hold 1 - ALPHA


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """Reference minus other over paired seeds, of test accuracy.

    Attributes:
        std: sample standard deviation of the differences; None with one seed.
        p: two-sided paired t-test; None where there is none: one seed, or the same difference in every seed.
        interval: its 95 % confidence interval of the mean; None where there is no test.
    """

    mean: float
    std: float | None
    n: int
    p: float | None
    interval: tuple[float, float] | None

    @property
    def significant(self) -> bool:
        return self.p is not None and self.p < ALPHA


def student_reach(std: float, n: int) -> float:
    """Half the width of Student's interval of the mean of n values at 1 - ALPHA."""
    from scipy.special import stdtrit  # the inverse of the distribution function

    return float(stdtrit(n - 1, 1 - ALPHA / 2)) * (std / math.sqrt(n))


def paired_difference(reference: dict[int, float], other: dict[int, float]) -> Difference:
    """Reference minus other; both have the same seeds, at least one."""
    # Accuracies are fractions of image counts; rounded, differences that are equal by count are equal here too.
    values = [round(reference[seed] - other[seed], 12) for seed in reference]
    n, mean = len(values), statistics.fmean(values)
    std = statistics.stdev(values) if n > 1 else None
    if not std:
        return Difference(mean=mean, std=std, n=n, p=None, interval=None)
    from scipy.special import stdtr  # Student's t: the distribution function

    error = std / math.sqrt(n)
    reach = student_reach(std, n)
    p = 2 * float(stdtr(n - 1, -abs(mean) / error))
    return Difference(mean=mean, std=std, n=n, p=p, interval=(mean - reach, mean + reach))
