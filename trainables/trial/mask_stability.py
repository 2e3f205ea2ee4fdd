"""When a mask is stable: the masks that a method would give after each warm-up epoch, beside those of the epochs before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from trainables.analysis.mask_overlap import corrected_overlap, early_pruning_indicator
from trainables.config.trial import TrialConfig
from trainables.pruning.masks import Masks

OVERLAP = 0.3  # lost no accuracy where it was tried (tests/benchmarks/auto_warmup.py)
PEAK_EPOCHS = 5  # earlier epochs whose early pruning indicator is not higher when a warm-up ends (arXiv:2110.12007)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """The stability of the mask after an epoch; epoch 0 is the initialisation.

    Attributes:
        overlap: the smallest chance-corrected overlap with the masks of the epochs before, as many as the window has; None for
            the first epoch.
        epi: early pruning indicator (arXiv:2110.12007, equation 6); None until the window is full.
    """

    epoch: int
    overlap: float | None
    epi: float | None


def channels_in(masks: Masks) -> Masks:
    """For each layer its channels that have weights left, bool (channels,): the neurons of arXiv:2110.12007."""
    return {name: mask.flatten(1).any(1) for name, mask in masks.items()}


@dataclass(kw_only=True)
class MaskHistory:
    """The masks of the last epochs, and the readings of all.

    Attributes:
        masks: of at most `window` epochs, the latest last.
    """

    window: int
    masks: list[Masks] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)

    def add(self, masks: Masks) -> None:
        """Reads the mask of the next epoch."""
        overlap = min((corrected_overlap(masks, earlier) for earlier in self.masks), default=None)
        full = len(self.masks) == self.window
        epi = early_pruning_indicator([*self.masks, masks], last=self.window) if full else None
        self.readings.append(Reading(epoch=len(self.readings), overlap=overlap, epi=epi))
        self.masks = [*self.masks, masks][-self.window :]


def stable_threshold(config: TrialConfig) -> float:
    """The value from which on the mask is stable by the trial's rule."""
    if config.warmup.threshold is not None:
        return config.warmup.threshold
    return OVERLAP if config.warmup.rule == "overlap" else config.pruning.stable_epi


def is_stable(readings: Sequence[Reading], config: TrialConfig) -> bool:
    """Whether the warm-up may end after the last epoch that was read.

    By overlap if the mask agrees with each of the `window` masks before; by the early pruning indicator if it is above the
    threshold and no lower than in the PEAK_EPOCHS epochs before, as far as it is known there. Never before the window is full.
    """
    *before, last = readings
    if last.epoch < config.warmup.window:
        return False
    threshold = stable_threshold(config)
    if config.warmup.rule == "overlap":
        return last.overlap is not None and last.overlap >= threshold
    earlier = [reading.epi for reading in before[-PEAK_EPOCHS:] if reading.epi is not None]
    return last.epi is not None and last.epi >= max(earlier, default=threshold) and last.epi >= threshold


def stop_reason(readings: Sequence[Reading], config: TrialConfig) -> str:
    """Why the warm-up ends after the last epoch that was read, in words."""
    last, threshold, window = readings[-1], stable_threshold(config), config.warmup.window
    if config.warmup.rule == "overlap":
        value, name = last.overlap, f"overlap of the kept weights with the {window} epochs before"
    else:
        value, name = last.epi, "early pruning indicator"
    figures = f"{name} {'not known' if value is None else f'{value:.3f}'}, threshold {threshold:g}"
    if is_stable(readings, config):
        return f"the mask is stable: {figures}"
    return f"the mask is not stable after the most epochs allowed, {config.warmup_epochs}: {figures}"
