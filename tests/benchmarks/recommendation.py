"""Recommendations for groups whose true means are known: `python -m tests.benchmarks.recommendation [--draws 1000]`.

For each kind of group (tests/support/synthetic_sweeps.py) and number of seeds: how often the recommended configuration is the
best or within the indifference of it, how often the 95 % interval holds its true mean, beside the plain t-interval of its
seeds, how often it is called settled, and how often that is wrong.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.recommendation.choice import Certainty, Choice, choose
from tests.support.synthetic_sweeps import KINDS, SyntheticGroup, synthetic_group

INDIFFERENCE = 0.2


@dataclass(frozen=True, kw_only=True)
class Score:
    """Shares of the draws.

    Attributes:
        plain: the interval of Student's t over the seeds of the configuration alone.
        wrong: of those that are called settled.
    """

    right: float
    coverage: float
    plain: float
    settled: float
    wrong: float
    width: float


def score(kind: str, seeds: int, draws: int, **options: bool) -> Score:
    """What the recommendations of so many groups are worth."""
    draw = random.Random(f"{kind}/{seeds}/{sorted(options.items())}")
    chosen = [_chosen(synthetic_group(kind, seeds, draw, **options)) for _ in range(draws)]
    settled = [lost > INDIFFERENCE for group, choice, lost in chosen if choice.certainty is Certainty.SETTLED]
    intervals = [choice.estimate.interval or (-math.inf, math.inf) for _, choice, _ in chosen]
    return Score(
        right=statistics.fmean(lost <= INDIFFERENCE for _, _, lost in chosen),
        coverage=statistics.fmean(
            low <= group.truth[choice.best] <= high for (group, choice, _), (low, high) in zip(chosen, intervals, strict=True)
        ),
        plain=statistics.fmean(_in_plain_interval(group, choice) for group, choice, _ in chosen),
        settled=len(settled) / draws,
        wrong=statistics.fmean(settled) if settled else 0.0,
        width=statistics.median(high - low for low, high in intervals),
    )


def _chosen(group: SyntheticGroup) -> tuple[SyntheticGroup, Choice, float]:
    choice = choose(group.values, dict.fromkeys(group.truth, 1.0), INDIFFERENCE)
    return group, choice, group.best - group.truth[choice.best]


def _in_plain_interval(group: SyntheticGroup, choice: Choice) -> bool:
    from scipy.special import stdtrit

    row = list(group.values[choice.best].values())
    reach = float(stdtrit(len(row) - 1, 0.975)) * statistics.stdev(row) / math.sqrt(len(row))
    return abs(statistics.fmean(row) - group.truth[choice.best]) <= reach


def cases() -> Iterator[tuple[str, int, dict[str, bool]]]:
    for kind in KINDS:
        for seeds in (2, 3, 4, 8):
            yield kind, seeds, {}
    for seeds in (4, 8):
        yield "plateau", seeds, {"uneven": True}
        yield "plateau", seeds, {"staged": True}
        yield "surface", seeds, {"staged": True}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    draws = parser.parse_args().draws
    print("group               seeds    right   in 95 %  plain t  settled  wrong    width")
    scores = []
    for kind, seeds, options in cases():
        one = score(kind, seeds, draws, **options)
        scores.append(one)
        name = " ".join((kind, *options))
        shares = (one.right, one.coverage, one.plain, one.settled, one.wrong)
        print(f"{name:20} {seeds:4}", *(f" {share:7.1%}" for share in shares), f" {one.width:.2f}")
    print(f"all: {statistics.fmean(one.coverage for one in scores):.1%} in the interval")


if __name__ == "__main__":
    main()
