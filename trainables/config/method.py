"""Describes a pruning method: when it prunes, its options, and where its code is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from trainables.config.options import Options

# Of arXiv:2110.12007, one for all networks and sparsities; read in reimplementations and in the authors' figure.
EPI_OF_MAGNITUDES, EPI_OF_GRADIENTS = 0.983, 0.944


class Course(Enum):
    """When a method prunes."""

    DENSE = "never"
    ONE_ROUND = "once before the sparse training"  # more rounds without training in between would give the same mask
    ROUNDS = "in prune_iterations rounds before the sparse training"
    LEVELS = "after each of several trainings, followed by rewinding"
    ONCE_DURING = "once during the sparse training"
    GRADUAL = "during the sparse training, in prune_iterations updates"
    EVERY_STEP = "during the sparse training, at every step"

    @property
    def uses_iterations(self) -> bool:
        return self in (Course.ROUNDS, Course.GRADUAL)

    @property
    def is_during_training(self) -> bool:
        return self in (Course.ONCE_DURING, Course.GRADUAL, Course.EVERY_STEP)

    @property
    def ends_before_training(self) -> bool:
        """Whether the mask is final before the sparse training, so that sanity checks apply to it (SanityConfig)."""
        return self in (Course.ONE_ROUND, Course.ROUNDS, Course.LEVELS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """One pruning method.

    Attributes:
        name: as in the sweep file, where its options are in a block of the same name.
        description: of that block, one sentence.
        keeps: which weights it keeps, for the guide.
        source: paper.
        implementation: "MODULE:NAME", imported when a trial runs: the function that scores the surviving weights
            (pruning/scorers.py), or the MaskUpdater of a method that prunes during training (pruning/sparse_trainers.py).
        preflight: "MODULE:FUNCTION" that raises ConfigError for a network that the method cannot prune; empty if there is none.
        is_ranking: whether scores are meaningful, so that keeping the lowest (`sanity.invert`) makes a difference.
        scores_channels: whether its scores are of channels, so that it needs granularity channel.
        compensates: whether the layers that read removed channels are fitted to those that remain (TrialConfig.compensate).
        spiking_problem: why it cannot prune a spiking network; empty if it can.
        needs_whole_batches: whether its terms of the loss are not means over images, so that workers cannot add up their parts.
        is_reconstruction: whether it is rebuilt from a paper's abstract, so that its results are not those of the paper.
        stable_epi: value of the early pruning indicator at which an automatic warm-up may end, by default that of gradients.
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
    scores_channels: bool = False
    compensates: bool = False
    spiking_problem: str = ""
    needs_whole_batches: bool = False
    is_reconstruction: bool = False
    stable_epi: float = EPI_OF_GRADIENTS

    @property
    def prunes_channels(self) -> bool:
        """Whether it can remove whole channels: it scores them, or the scores of their weights decide before the training."""
        return self.scores_channels or self.course.ends_before_training
