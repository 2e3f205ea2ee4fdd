"""Checks of the splits that a configuration asks for, and lines that describe them: by the counts of classes alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from trainables.config.trial import TrialConfig
from trainables.data.facts import DataFacts
from trainables.data.split_counts import SplitCounts, split_counts
from trainables.errors import DataError
from trainables.findings import Finding

UNEVEN = 1  # classes whose counts differ by more are shown at the start of a run


def split_findings(config: TrialConfig, facts: DataFacts) -> list[Finding]:
    """Problems of a trial's splits: an "error" where it cannot run, a "warning" where its results are weaker."""
    try:
        counts = split_counts(config.dataset, facts.train_counts, facts.test_counts)
    except DataError as error:
        return [Finding(check="limit", severity="error", message=error.message, hint=error.hint)]
    return [*_too_small(config, counts), *_scoring(config, counts)]


def _too_small(config: TrialConfig, counts: SplitCounts) -> list[Finding]:
    findings = []

    def add(check: str, message: str, hint: str) -> None:
        findings.append(Finding(check=check, severity="error", message=message, hint=hint))

    dataset, batch = config.dataset, config.training.batch_size
    images, held_out, test = sum(counts.train), sum(counts.validation), sum(counts.test)
    limit = "" if dataset.limit is None else f"dataset.limit is {dataset.limit}, "
    if images < batch:
        rule = f"training.batch_size must be at most the number of training images, {images}"
        reason = f"{limit}{held_out} are held out by dataset.validation {dataset.validation:g}"
        hint = f"set it to {images} or less" if images >= 2 else "use more images"
        if dataset.limit is not None:
            hint += ", or raise dataset.limit"
        add("batch_size", f"{rule} ({reason}), got {batch}", hint)
    if dataset.validation > 0 and not held_out:
        limited = sum(counts.limited)
        hint = "set it to 0 to hold out none"
        if limited > sum(count > 0 for count in counts.limited):
            hint = f"set it to {_least_share(config, counts):g} or more, or to 0 to hold out none"
        rule = "dataset.validation must hold out at least one image and leave one of each class to train on"
        add("validation", f"{rule}, got {dataset.validation:g} of {limited} images", hint)
    if not test:
        hint = "raise dataset.limit" if dataset.limit is not None else "add test images"
        add("test", f"the test split must have at least one image, got none ({limit}a fifth of it)", hint)
    return findings


def _least_share(config: TrialConfig, counts: SplitCounts) -> float:
    """The smallest share of validation, in thousandths, that holds out an image."""

    def holds_out(share: float) -> bool:
        dataset = replace(config.dataset, limit=None, validation=share)
        return sum(split_counts(dataset, counts.limited, (1,)).validation) > 0

    return next((number / 1000 for number in range(1, 501) if holds_out(number / 1000)), 0.5)


def _scoring(config: TrialConfig, counts: SplitCounts) -> list[Finding]:
    """Warnings where a score uses more images than there are: it then uses all of them, some several times."""
    options = config.options
    per_class, batches = getattr(options, "images_per_class", None), getattr(options, "score_batches", 1)
    images = sum(counts.train)
    if per_class is not None:
        short = [str(label) for label, count in enumerate(counts.train) if count < per_class]
        if not short:
            return []
        message = f"{config.method}.images_per_class is {per_class}, and {len(short)} classes have fewer training images"
        hint = "they give all that they have"
        return [Finding(check="images_per_class", severity="warning", message=message, hint=hint, places=tuple(short))]
    if batches * config.training.batch_size <= images or batches == 1:
        return []
    requested = f"{batches} batches of {config.training.batch_size}"
    message = f"{config.method}.score_batches asks for {requested}, there are {images} training images"
    hint = "images are in several batches of a score"
    return [Finding(check="score_batches", severity="warning", message=message, hint=hint)]


def split_lines(counts: SplitCounts, classes: Sequence[str], only_uneven: bool = False) -> list[str]:
    """One line for each split: its images, and the smallest and largest classes where their counts differ."""
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
