"""What there is to know about a pruning method besides how it computes: when it prunes, its options, where its code lies."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from trainables.config.options import Options


class Course(Enum):
    """When a method prunes."""

    DENSE = "never"
    ONE_ROUND = "once before the sparse training"  # without training between them, more rounds would give the same mask
    ROUNDS = "in prune_iterations rounds before the sparse training"
    LEVELS = "after each of several trainings, then it rewinds"
    GRADUAL = "during the sparse training, in prune_iterations updates"
    EVERY_STEP = "during the sparse training, at every step"

    @property
    def uses_iterations(self) -> bool:
        return self in (Course.ROUNDS, Course.GRADUAL)

    @property
    def is_during_training(self) -> bool:
        return self in (Course.GRADUAL, Course.EVERY_STEP)

    @property
    def ends_before_training(self) -> bool:
        """Whether one mask is final before the sparse training begins, so that it can be tested (SanityConfig)."""
        return self in (Course.ONE_ROUND, Course.ROUNDS, Course.LEVELS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """One pruning method.

    Attributes:
        name: as in the sweep file, where its options stand in a block of the same name.
        description: of that block, one sentence.
        keeps: which weights it keeps, and what there is to know of it, for the guide.
        source: paper.
        implementation: "MODULE:NAME", imported when a trial runs: the function that scores the surviving weights
            (pruning/scorers.py), or for a method that prunes during training its MaskUpdater (pruning/sparse_trainers.py).
        preflight: "MODULE:FUNCTION" that raises ConfigError for a network which the method cannot prune; empty if it takes any.
        is_ranking: whether a higher score means anything, so that keeping the lowest (`sanity.invert`) is another method.
    """

    name: str
    course: Course
    description: str
    keeps: str
    source: str = ""
    options: type[Options] = Options
    implementation: str = ""
    preflight: str = ""
    is_ranking: bool = True
