"""How many images of each class go into every split, from the class counts alone, so that a plan knows it without the images.

A draw takes from every class its *share*, in proportion to its images, rounded by largest remainder:

- `limit` takes shares of the training images, but at least one image of each class, and shares of the test images;
- `validation` takes shares of what `limit` took, and leaves at least one image of each class to train on, so a class with a
  single image keeps it. Where small classes have too few, it holds out fewer images than requested.

Balanced classes give equal numbers instead (one image of each class in turn), as in earlier versions: where no class has over a
tenth more images than another, or where this is within one image of every share. So they keep their splits and keys;
`is_proportional` marks the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from trainables.config.trial import DatasetConfig, TrialConfig
from trainables.errors import DataError

Counts = tuple[int, ...]  # images of each class, by label
SPLIT_VERSION = 2
BALANCED = (11, 10)  # ratio of the largest to the smallest class


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitCounts:
    """Images of each class in every split.

    Attributes:
        limited: training images that `limit` takes, validation included.
        is_proportional: whether versions that only drew equal numbers had other splits.
    """

    limited: Counts
    validation: Counts
    test: Counts
    is_proportional: bool

    @property
    def train(self) -> Counts:
        return tuple(taken - held_out for taken, held_out in zip(self.limited, self.validation, strict=True))


@lru_cache(maxsize=256)
def split_counts(config: DatasetConfig, train: Counts, test: Counts) -> SplitCounts:
    """The counts of every split of a data set with so many images of each class.

    Raises:
        DataError: `limit` takes more images than there are, or fewer than there are classes.
    """
    limited, limited_test = train, test
    if config.limit is not None:
        _require_images(config.limit, train, test)
        limited = draw(train, config.limit, minimum=1)
        limited_test = draw(test, config.limit // 5, minimum=1)
    held_out = round(config.validation * sum(limited))
    validation = draw(limited, held_out, kept=1)
    equal = (
        limited == train or limited == equal_draw(train, sum(limited)),
        limited_test == test or limited_test == equal_draw(test, sum(limited_test)),
        validation == equal_draw(limited, held_out),
    )
    return SplitCounts(limited=limited, validation=validation, test=limited_test, is_proportional=not all(equal))


def draw(counts: Counts, number: int, *, minimum: int = 0, kept: int = 0) -> Counts:
    """Images that each class gives to a draw of `number`, by the rule above.

    Args:
        minimum: images that every class gives if it has any; ignored where `number` is too small for all classes.
        kept: images that every class keeps; the draw is smaller where classes have too few.
    """
    present = sum(count > 0 for count in counts)
    minimum = minimum if number >= minimum * present else 0
    equal = equal_draw(counts, number)
    allowed = all(minimum <= taken <= count - kept for taken, count in zip(equal, counts, strict=True) if count)
    balanced = _are_balanced(counts) or _is_near_shares(equal, counts, number)
    return equal if allowed and balanced else _proportional_draw(counts, number, minimum, kept)


def equal_draw(counts: Sequence[int], number: int) -> Counts:
    """One image of each class in turn, the lowest label first; a class that has no more is skipped."""
    level, rest = 0, number
    for smallest in sorted({count for count in counts if count}):  # all remaining classes rise to the size of the next one
        remaining = sum(count > level for count in counts)
        rise = min(smallest - level, rest // remaining)
        level, rest = level + rise, rest - rise * remaining
        if level < smallest:
            break
    taken = [min(count, level) for count in counts]
    for label, count in enumerate(counts):
        if rest and count > level:
            taken[label], rest = taken[label] + 1, rest - 1
    return tuple(taken)


def _are_balanced(counts: Counts) -> bool:
    present = [count for count in counts if count]
    return not present or max(present) * BALANCED[1] <= min(present) * BALANCED[0]


def _is_near_shares(taken: Counts, counts: Counts, number: int) -> bool:
    total = sum(counts)
    return all(abs(one * total - number * count) <= total for one, count in zip(taken, counts, strict=True))


def _proportional_draw(counts: Counts, number: int, minimum: int, kept: int) -> Counts:
    """Shares by largest remainder; of equal remainders the larger class gives, then the lower label."""
    taken = [0] * len(counts)
    classes = [label for label, count in enumerate(counts) if count]
    while True:  # classes whose share is below the minimum give that, and the others share the rest
        total = sum(counts[label] for label in classes)
        small = [label for label in classes if number * counts[label] < minimum * total]
        if not small:
            break
        for label in small:
            taken[label], number = minimum, number - minimum
        classes = [label for label in classes if label not in set(small)]
    for label in classes:
        taken[label] = min(number * counts[label] // total, counts[label] - kept)
    rest = number - sum(number * counts[label] // total for label in classes) if classes else 0
    ranked = sorted(classes, key=lambda label: (-(number * counts[label] % total), -counts[label], label))
    for label in [label for label in ranked if taken[label] < counts[label] - kept][:rest]:
        taken[label] += 1
    return tuple(taken)


def _require_images(limit: int, train: Counts, test: Counts) -> None:
    for split, number, counts in (("training", limit, train), ("test", limit // 5, test)):
        if number > sum(counts):
            most = min(sum(train), 5 * sum(test) + 4)
            raise DataError(
                f"dataset.limit asks for {number} {split} images, the data set has {sum(counts)}",
                f"set it to {most} or less" + (", since a fifth as many test images go with it" if split == "test" else ""),
            )
    present = sum(count > 0 for count in train)
    if limit < present:
        raise DataError(
            f"dataset.limit must take at least one image of each of the {present} classes, got {limit}",
            f"set it to {present} or more",
        )


def scoring_counts(counts: Sequence[int], per_class: int) -> Counts:
    """Images of each class in a class-balanced score: `per_class`, or all where a class has fewer."""
    return tuple(min(count, per_class) for count in counts)


def split_versions(config: TrialConfig, train: Counts, test: Counts) -> tuple[dict[str, int], dict[str, int]]:
    """Versions that become part of the keys of a trial and of its warm-up; empty where earlier versions drew the same images.

    Raises:
        DataError: as `split_counts`.
    """
    counts = split_counts(config.dataset, train, test)
    warmup = {"split": SPLIT_VERSION} if counts.is_proportional else {}
    per_class = getattr(config.options, "images_per_class", None)
    if per_class is None:
        return warmup, warmup
    # Earlier versions filled up with other classes where one has too few.
    filled = equal_draw(counts.train, min(per_class * len(train), sum(counts.train)))
    same = scoring_counts(counts.train, per_class) == filled
    return warmup if same else warmup | {"score_images": SPLIT_VERSION}, warmup
