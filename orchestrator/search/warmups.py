"""Which warm-ups are trained, or are going to be: trials that share one pay for its missing epochs alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from trainables.config.trial import TrialConfig


@dataclass(kw_only=True)
class WarmupLedger:
    """The longest warm-up of each warm-up key.

    Attributes:
        key_of: the warm-up key of a trial.
        shared: equal warm-ups are trained once.
        longest: warm-up key, any -> epochs of its longest snapshot, of before this search or by a trial that has begun.
    """

    key_of: Callable[[TrialConfig], str]
    shared: bool = True
    longest: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def missing(self, config: TrialConfig) -> int:
        """Epochs of warm-up that the trial would have to train."""
        needed = max(config.warmup_lengths, default=0)
        return max(0, needed - self.longest[self.key_of(config)]) if self.shared and needed else needed

    def cost(self, config: TrialConfig) -> int:
        """All epochs that the trial would have to train."""
        return self.missing(config) + config.level_epochs + config.sparse_epochs

    def add(self, config: TrialConfig) -> None:
        """A trial has begun, so its warm-up is trained."""
        needed = max(config.warmup_lengths, default=0)
        if self.shared and needed:
            key = self.key_of(config)
            self.longest[key] = max(needed, self.longest[key])
