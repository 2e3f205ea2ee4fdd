"""What the best configuration of a group will give on further seeds, although it was chosen for being the best on these.

The highest of several noisy means is too high by itself. So it is drawn towards the mean of its contenders, those that it is
not known to be better than, by as much as their spread is noise (empirical Bayes, with the factor of James and Stein). The
variance adds what noise leaves, what the contenders' mean lacks, and the seeds' part. tests/benchmarks/recommendation.py shows
how often the interval holds the truth.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from orchestrator.recommendation.fit import Fit

LEVEL = 0.05  # intervals hold 1 - LEVEL


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over all seeds, and the interval that holds it in 95 of 100 sweeps; None where noise is not known."""

    mean: float
    interval: tuple[float, float] | None


def estimate(fit: Fit, number: int, contenders: frozenset[int]) -> Estimate:
    """The estimate for a configuration that was chosen as the best of its contenders, itself among them."""
    raw = fit.means[number]
    if not fit.noise.freedom:
        return Estimate(mean=raw, interval=None)
    of_mean = fit.variance_of_mean(number)
    mean, variance = raw, of_mean
    if len(contenders) > 1:
        others = [fit.means[one] for one in contenders]
        centre, noise = statistics.fmean(others), statistics.fmean(map(fit.variance_of_mean, contenders))
        kept = _share_kept(others, noise)
        mean = centre + kept * (raw - centre)
        shift = (1 - kept) * (raw - centre)
        variance = kept * of_mean + (1 - kept) * noise / len(others) + 2 * shift**2 / (len(others) - 1)
    by_seeds = fit.seed_variance / fit.seeds[number]
    reach = _quantile(fit, variance, by_seeds) * math.sqrt(variance + by_seeds)
    return Estimate(mean=mean, interval=(mean - reach, mean + reach))


def _share_kept(means: list[float], noise: float) -> float:
    """The share of a mean's distance from the centre that is no noise, in 0..1."""
    spread = statistics.variance(means)
    real = max(0.0, spread - noise)
    kept = real / (real + noise) if real + noise > 0 else 1.0
    count = len(means)
    return 1 - (count - 3) / (count - 1) * (1 - kept) if count > 3 else kept


def _quantile(fit: Fit, variance: float, by_seeds: float) -> float:
    """Student's t for a sum of two variances with different degrees of freedom (Satterthwaite)."""
    from scipy.special import stdtrit

    total = variance + by_seeds
    parts = variance**2 / fit.noise.freedom + (by_seeds**2 / (fit.blocks - 1) if by_seeds else 0.0)
    freedom = total**2 / parts if parts else float(fit.noise.freedom)
    return float(stdtrit(freedom, 1 - LEVEL / 2))
