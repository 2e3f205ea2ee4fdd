"""Options of every pruning method, each in a block of its own; a trial's key holds only those of its method.

A default never changes its meaning: it is left out of keys (keys.py). What a method does with its options is in
pruning/scorers.py for those that prune before training, in pruning/sparse_trainers.py for those that prune during it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Method = Literal[
    "drive", "snip", "grasp", "synflow", "magnitude", "random", "imp", "gmp", "granet", "srste", "dense"
]  # fmt: skip
Normalize = Literal["mean", "sum", "rank", "none"]
DensitySchedule = Literal["exponential", "linear"]
BatchNormMode = Literal["batch", "running"]

SCORED_IN_ROUNDS = ("drive", "snip", "grasp", "synflow")
SCORED_ONCE = ("magnitude", "random")  # without training between them, more rounds give the same mask
GRADUAL = ("gmp", "granet")
DURING_TRAINING = (*GRADUAL, "srste")
COUNTS_ITERATIONS = (*SCORED_IN_ROUNDS, *GRADUAL)  # prune_iterations matters
HANDS_A_MASK_TO_TRAINING = (*SCORED_IN_ROUNDS, *SCORED_ONCE, "imp")  # so the mask can be checked (SanityConfig)
METHOD_BLOCKS = ("drive", "snip", "grasp", "synflow", "random", "imp", "gmp", "granet", "srste")  # methods with options


@dataclass(frozen=True, kw_only=True, slots=True)
class Rounds:
    """Options of a method that scores in rounds: how the share of kept weights falls from one to the next."""

    density_schedule: DensitySchedule = "exponential"


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageRounds(Rounds):
    """Options of rounds whose scores are taken over images.

    Attributes:
        score_batches: training batches of one score.
    """

    score_batches: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class DriveConfig(ImageRounds):
    """The DRIVE score and its rounds; every default here is an assumption (README, "Assumptions")."""

    magnitude: float = 1.0
    connection: float = 1.0
    convergence: float = 1.0
    normalize: Normalize = "mean"


@dataclass(frozen=True, kw_only=True, slots=True)
class SnipConfig(ImageRounds):
    """Connection sensitivity |w dL/dw| (arXiv:1810.02340); with `prune_iterations` above 1 it is scored again in every round.

    Attributes:
        images_per_class: class-balanced images of one score, instead of `score_batches` training batches.
        batch_norm: statistics while scoring, of the batch or running; before any training "running" makes BN the identity.
    """

    images_per_class: int | None = None
    batch_norm: BatchNormMode = "batch"


@dataclass(frozen=True, kw_only=True, slots=True)
class GraspConfig(ImageRounds):
    """Gradient signal preservation (arXiv:2002.07376): scores of a softmax at `temperature`, over class-balanced images."""

    temperature: float = 200.0
    images_per_class: int | None = 10
    batch_norm: BatchNormMode = "batch"


@dataclass(frozen=True, kw_only=True, slots=True)
class SynflowConfig(Rounds):
    """Synaptic flow (arXiv:2006.05467); the paper prunes in 100 rounds, here `prune_iterations`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomConfig:
    """A random mask.

    Attributes:
        layers: "uniform" is one density for all; "erk" by layer as Erdos-Renyi-Kernel says (arXiv:1911.11134); the key of
            another trial takes that trial's count of every layer.
    """

    layers: str = "uniform"


@dataclass(frozen=True, kw_only=True, slots=True)
class ImpConfig:
    """Iterative magnitude pruning with rewinding (arXiv:1803.03635, arXiv:1903.01611): train, prune, rewind, again.

    Every level trains as long as the sparse training does and rewinds to the end of the warm-up; without a warm-up that is the
    original lottery ticket. As published, a level continues the learning-rate schedule where it rewound to: that is
    `training.budget: total`; by default every level begins the schedule anew, as all methods do.

    Attributes:
        fraction: share of the remaining weights that a level prunes; with the sparsity it decides how many levels there are.
        exact: all levels prune one smaller share, so that the last ends at the sparsity; if not, each prunes `fraction`, and
            the last ends at or beyond it, as published.
    """

    fraction: float = 0.2
    exact: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class GmpConfig:
    """Gradual magnitude pruning (arXiv:1710.01878): global, sparsity along a cubic, in `prune_iterations` updates.

    Attributes:
        begin, end: shares of the sparse training between which the updates are spread evenly.
        initial_sparsity: where the cubic begins, here by magnitude.
    """

    begin: float = 0.0
    end: float = 0.5
    initial_sparsity: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class GranetConfig(GmpConfig):
    """Gradual pruning with regrowth (GraNet, arXiv:2106.10404): begins with a random mask of Erdos-Renyi-Kernel densities.

    Attributes:
        regrow: share of every layer's weights that an update exchanges for those of the largest gradients, at the first step;
            it falls along a cosine to a hundredth of it at the end of the training. Updates go on after `end`, at their pace.
    """

    initial_sparsity: float = 0.5
    regrow: float = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class SrsteConfig:
    """N:M sparsity by the sparse-refined straight-through estimator (SR-STE, arXiv:2102.04010, equation 9).

    Attributes:
        pattern: "N:M", of every M weights along the input channels the N largest are kept. A layer whose input channels are
            no multiple of M stays dense. The trial's sparsity follows from it.
        decay: factor of the extra decay of the others.
    """

    pattern: str = "2:4"
    decay: float = 2e-4

    @property
    def n_of_m(self) -> tuple[int, int]:
        n, m = self.pattern.split(":")
        return int(n), int(m)


@dataclass(frozen=True, kw_only=True, slots=True)
class SanityConfig:
    """Checks of what a mask is worth (arXiv:2009.08576, arXiv:2009.11094); each changes one thing and nothing else.

    Attributes:
        shuffle: the final mask is permuted within every layer.
        reinitialize: sparse training begins from another initialisation.
        invert: the weights with the lowest scores are kept.
    """

    shuffle: bool = False
    reinitialize: bool = False
    invert: bool = False
