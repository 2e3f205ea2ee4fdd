"""What a configuration asks of its data that they cannot give, and how its splits look: by the counts of classes alone."""

from __future__ import annotations

from collections.abc import Sequence

from trainables.config.trial import TrialConfig
from trainables.data.facts import DataFacts
from trainables.data.split_counts import SplitCounts, split_counts
from trainables.errors import DataError
from trainables.findings import Finding

UNEVEN = 1  # images that classes of a split may differ by before their counts are shown at the start of a run


def split_findings(config: TrialConfig, facts: DataFacts) -> list[Finding]:
    """What is wrong with the splits that a trial asks for ("error"), or weakens it ("warning")."""
    try:
        counts = split_counts(config.dataset, facts.train_counts, facts.test_counts)
    except DataError as error:
        return [Finding(check="limit", severity="error", message=str(error))]
    return [*_too_small(config, counts), *_scoring(config, counts)]


def _too_small(config: TrialConfig, counts: SplitCounts) -> list[Finding]:
    def refused(check: str, message: str, hint: str) -> Finding:
        return Finding(check=check, severity="error", message=message, hint=hint)

    found = []
    dataset, batch = config.dataset, config.training.batch_size
    images, held_out, test = sum(counts.train), sum(counts.validation), sum(counts.test)
    limit = "" if dataset.limit is None else f"dataset.limit is {dataset.limit}, "
    if images < batch:
        rule = f"training.batch_size must be at most the number of training images, {images}"
        why = f"{limit}{held_out} are held out by dataset.validation {dataset.validation:g}"
        hint = f"set it to {images} or less" if images >= 2 else "use more images"
        if dataset.limit is not None:
            hint += ", or raise dataset.limit"
        found.append(refused("batch_size", f"{rule} ({why}), got {batch}", hint))
    if dataset.validation > 0 and not held_out:
        of = sum(counts.limited)
        hint = "set it to 0 to hold out none"
        if of > sum(count > 0 for count in counts.limited):
            hint = f"set it to {_least_share(config, counts):g} or more, or to 0 to hold out none"
        rule = "dataset.validation must hold out at least one image and leave one of each class to train on"
        found.append(refused("validation", f"{rule}, got {dataset.validation:g} of {of} images", hint))
    if not test:
        hint = "raise dataset.limit" if dataset.limit is not None else "add test images"
        found.append(refused("test", f"the test split must have at least one image, got none ({limit}a fifth of it)", hint))
    return found


def _least_share(config: TrialConfig, counts: SplitCounts) -> float:
    """The smallest share of validation, in hundredths, that holds out an image."""
    from dataclasses import replace

    shares = (number / 1000 for number in range(1, 501))
    return next(
        (
            share
            for share in shares
            if sum(split_counts(replace(config.dataset, limit=None, validation=share), counts.limited, (1,)).validation)
        ),
        0.5,
    )


def _scoring(config: TrialConfig, counts: SplitCounts) -> list[Finding]:
    """Scores over more images than there are: they are taken over all there are, some of them several times."""
    options = getattr(config, config.method, None)
    per_class, batches = getattr(options, "images_per_class", None), getattr(options, "score_batches", 1)
    place, images = f"{config.method}.", sum(counts.train)
    if per_class is not None:
        short = [str(label) for label, count in enumerate(counts.train) if count < per_class]
        if not short:
            return []
        message = f"{place}images_per_class is {per_class}, and {len(short)} classes have fewer training images"
        hint = "they give all that they have"
        return [Finding(check="images_per_class", severity="warning", message=message, hint=hint, places=tuple(short))]
    if batches * config.training.batch_size <= images or batches == 1:
        return []
    message = (
        f"{place}score_batches asks for {batches} batches of {config.training.batch_size}, there are {images} training images"
    )
    return [
        Finding(check="score_batches", severity="warning", message=message, hint="images are in several batches of a score")
    ]


def split_lines(counts: SplitCounts, classes: Sequence[str], only_uneven: bool = False) -> list[str]:
    """One line for each split: its images, and the classes with the fewest and the most where they differ."""
    lines = []
    for name, by_class in (("training", counts.train), ("validation", counts.validation), ("test", counts.test)):
        low, high = min(by_class, default=0), max(by_class, default=0)
        if only_uneven and high - low <= UNEVEN:
            continue
        line = f"{name}: {sum(by_class):,} images"
        if high - low > UNEVEN:
            pairs = [f"{classes[label]} {count:,}" for label, count in sorted(enumerate(by_class), key=lambda one: one[1])]
            shown = pairs if len(pairs) <= 6 else [*pairs[:3], "...", *pairs[-2:]]
            line += f" ({', '.join(shown)})"
        lines.append(line)
    return lines
