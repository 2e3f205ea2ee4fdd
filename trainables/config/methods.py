"""The pruning methods: one table in which everything about a method stands.

The sweep file's schema, rules and template, the tables of the guide, trial keys, the course of a trial and what scores or
trains it all follow from the table. To add a method, write its score or its mask updater in a file of `pruning/`, and declare
its options and its entry here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from trainables.config.counts import imp_levels, kept_count
from trainables.config.method import Course, Method
from trainables.config.options import BatchNormMode, CustomOptions, ImageRounds, OptionConflict, Options, Rounds, option

Normalize = Literal["mean", "sum", "rank", "none"]

CUSTOM_PREFIX = "module:"  # of a reference to a function of the user's, module:FILE.FUNCTION
SCORERS = "trainables.pruning.scorers"
BATCH_NORM = "Statistics of BN while scoring: of the batch, or running ones."
IMAGES_PER_CLASS = "Images of every class that score; null takes training batches."


@dataclass(frozen=True, kw_only=True, slots=True)
class DriveConfig(ImageRounds):
    """The DRIVE score and its rounds; every default here is an assumption (`drive-sweep guide assumptions`)."""

    magnitude: float = option(1.0, "Factor of |w| in the score.", ge=0)
    connection: float = option(1.0, "Factor of |w dL/dw| in the score.", ge=0)
    convergence: float = option(1.0, "Factor of |dL/dw| in the score.", ge=0)
    normalize: Normalize = option("mean", "What brings the three terms to one scale: mean, sum, rank or none.")
    score_batches: int = option(1, "Batches that the gradient of one score is taken over.", ge=1)

    def conflicts(self) -> Iterator[OptionConflict]:
        if self.magnitude == self.connection == self.convergence == 0:
            factors = ("magnitude", "connection", "convergence")
            yield OptionConflict(factors, "not be 0 with both other factors 0", "raise one of the three")


@dataclass(frozen=True, kw_only=True, slots=True)
class SnipConfig(ImageRounds):
    """Connection sensitivity |w dL/dw| (arXiv:1810.02340); with `prune_iterations` above 1 it is scored again in every round.

    `batch_norm: running` makes BN the identity before any training.
    """

    images_per_class: int | None = option(None, IMAGES_PER_CLASS, ge=1, decides_preflight=True)
    batch_norm: BatchNormMode = option("batch", BATCH_NORM, decides_preflight=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class GraspConfig(ImageRounds):
    """Gradient signal preservation (arXiv:2002.07376): scores of a softmax at `temperature`, over class-balanced images."""

    temperature: float = option(200.0, "Divides the class scores in the loss.", gt=0, decides_preflight=True)
    images_per_class: int | None = option(10, IMAGES_PER_CLASS, ge=1, decides_preflight=True)
    batch_norm: BatchNormMode = option("batch", BATCH_NORM, decides_preflight=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class SynflowConfig(Rounds):
    """Synaptic flow (arXiv:2006.05467); the paper prunes in 100 rounds, here `prune_iterations`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomConfig(Options):
    """A random mask: "uniform" is one density for all layers; "erk" is Erdos-Renyi-Kernel (arXiv:1911.11134); the key of a
    trial takes that trial's count of every layer."""

    layers: str = option(
        "uniform",
        "One density for all layers, Erdos-Renyi-Kernel densities, or the counts of a finished trial, by its key.",
        pattern="^(uniform|erk|[0-9a-f]{16})$",
        rule="uniform, erk, or the key of a trial, 16 hex digits",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ImpConfig(Options):
    """Iterative magnitude pruning with rewinding (arXiv:1803.03635, arXiv:1903.01611): train, prune, rewind, again.

    Every level trains as long as the sparse training does and rewinds to the end of the warm-up; without a warm-up that is the
    original lottery ticket. As published, a level continues the learning-rate schedule where it rewound to: that is
    `training.budget: total`; by default every level begins the schedule anew, as all methods do.

    With `exact` all levels prune one smaller share, so that the last ends at the sparsity; without it each prunes `fraction`,
    and the last ends at or beyond it, as published.
    """

    fraction: float = option(0.2, "Share of the remaining weights that a level prunes.", gt=0, lt=1)
    exact: bool = option(
        True, "Prune a little less at every level, so that the last ends on the sparsity; false ends at or beyond it."
    )

    def levels(self, sparsity: float) -> int:
        return imp_levels(sparsity, self.fraction)

    def kept_after_level(self, level: int, prunable: int) -> int | None:
        return None if self.exact else kept_count(1 - (1 - self.fraction) ** level, prunable)


@dataclass(frozen=True, kw_only=True, slots=True)
class GmpConfig(Options):
    """Gradual magnitude pruning (arXiv:1710.01878): global, sparsity along a cubic, in `prune_iterations` updates that are
    spread evenly between the shares `begin` and `end` of the sparse training."""

    begin: float = option(0.0, "Share of the training after which gradual pruning begins.", ge=0, lt=1)
    end: float = option(0.5, "Share of the training after which the sparsity is reached.", gt=0, le=1)
    initial_sparsity: float = option(0.0, "Sparsity at the beginning of the training.", ge=0, lt=1)

    def conflicts(self) -> Iterator[OptionConflict]:
        if self.begin >= self.end:
            yield OptionConflict(("begin", "end"), "be < {block}.end", "begin earlier or end later")


@dataclass(frozen=True, kw_only=True, slots=True)
class GranetConfig(GmpConfig):
    """Gradual pruning with regrowth (GraNet, arXiv:2106.10404): begins with a random mask of Erdos-Renyi-Kernel densities.

    Updates go on after `end`, at their pace.
    """

    initial_sparsity: float = option(0.5, "Sparsity at the beginning of the training.", ge=0, lt=1)
    regrow: float = option(
        0.5, "Share of a layer's weights that an update exchanges at first; it falls along a cosine to a hundredth.", ge=0, lt=1
    )


def _check_n_of_m(pattern: str) -> None:
    n, _, m = pattern.partition(":")
    if not 0 < int(n) < int(m):
        raise ValueError("not N of M")


@dataclass(frozen=True, kw_only=True, slots=True)
class SrsteConfig(Options):
    """N:M sparsity by the sparse-refined straight-through estimator (SR-STE, arXiv:2102.04010, equation 9).

    A layer whose input channels are no multiple of M stays dense.
    """

    pattern: str = option(
        "2:4",
        "Of every M weights along the input channels the N largest are kept; the sparsity follows from it.",
        pattern="^[0-9]{1,3}:[0-9]{1,3}$",
        rule="N:M with 0 < N < M, such as 2:4",
        check=_check_n_of_m,
        decides_preflight=True,
    )
    decay: float = option(2e-4, "Extra decay of the weights that are not kept.", ge=0)

    @property
    def n_of_m(self) -> tuple[int, int]:
        n, m = self.pattern.split(":")
        return int(n), int(m)

    def fixed_sparsity(self) -> float | None:
        n, m = self.n_of_m
        return (m - n) / m

    def kept_in_layer(self, shape: tuple[int, ...]) -> int | None:
        n, m = self.n_of_m
        size = 1
        for side in shape:
            size *= side
        return size // m * n if shape[1] % m == 0 else size

    def nm_pattern(self) -> str | None:
        return self.pattern


_ALL = (
    Method(
        name="drive",
        course=Course.ROUNDS,
        options=DriveConfig,
        implementation=f"{SCORERS}:score_drive",
        description="The DRIVE score.",
        keeps="the highest of three terms together, see [assumptions](assumptions.md)",
        source="arXiv:2404.03687",
    ),
    Method(
        name="snip",
        course=Course.ROUNDS,
        options=SnipConfig,
        implementation=f"{SCORERS}:score_snip",
        description="Connection sensitivity alone.",
        keeps="connection sensitivity \\|w dL/dw\\|; with several iterations it is scored again in each",
        source="arXiv:1810.02340",
    ),
    Method(
        name="grasp",
        course=Course.ROUNDS,
        options=GraspConfig,
        implementation=f"{SCORERS}:score_grasp",
        preflight=f"{SCORERS}:check_second_derivative",
        description="Gradient signal preservation.",
        keeps="gradient flow, w (H g), with the loss at temperature 200 and class-balanced images",
        source="arXiv:2002.07376",
    ),
    Method(
        name="synflow",
        course=Course.ROUNDS,
        options=SynflowConfig,
        implementation=f"{SCORERS}:score_synflow",
        preflight=f"{SCORERS}:check_synaptic_flow",
        description="Synaptic flow; needs no data.",
        keeps="synaptic flow without data, BN neutral, float64; give it 100 iterations",
        source="arXiv:2006.05467",
    ),
    Method(
        name="magnitude",
        course=Course.ONE_ROUND,
        implementation=f"{SCORERS}:score_magnitude",
        description="The size of a weight.",
        keeps="\\|w\\|",
    ),
    Method(
        name="random",
        course=Course.ONE_ROUND,
        options=RandomConfig,
        implementation=f"{SCORERS}:score_random",
        is_ranking=False,
        description="A random mask.",
        keeps="any; `random.layers` chooses the densities of the layers",
        source="arXiv:1911.11134",
    ),
    Method(
        name="imp",
        course=Course.LEVELS,
        options=ImpConfig,
        implementation=f"{SCORERS}:score_magnitude",  # of weights that were trained to the end
        description="Iterative magnitude pruning: train, prune, rewind to the warm-up, again.",
        keeps="\\|w\\| after a whole training, a fifth less at every level, then rewinding to the end of the warm-up",
        source="arXiv:1903.01611",
    ),
    Method(
        name="gmp",
        course=Course.GRADUAL,
        options=GmpConfig,
        implementation="trainables.pruning.gradual_masks:GmpMasks",
        description="Gradual magnitude pruning during training.",
        keeps="\\|w\\| during training, along a cubic, in `prune_iterations` updates",
        source="arXiv:1710.01878",
    ),
    Method(
        name="granet",
        course=Course.GRADUAL,
        options=GranetConfig,
        implementation="trainables.pruning.gradual_masks:GranetMasks",
        description="Gradual magnitude pruning during training, with regrowth.",
        keeps="as `gmp`; every update also exchanges the smallest weights for those with the largest gradients",
        source="arXiv:2106.10404",
    ),
    Method(
        name="srste",
        course=Course.EVERY_STEP,
        options=SrsteConfig,
        implementation="trainables.pruning.nm_masks:NMMasks",
        description="N of every M weights, chosen anew at every step.",
        keeps="N of every M weights along the input channels, chosen anew at every step and saved as such",
        source="arXiv:2102.04010",
    ),
    Method(
        name="dense",
        course=Course.DENSE,
        description="No pruning.",
        keeps="all; one per seed is added as the baseline anyway",
    ),
)
METHODS: dict[str, Method] = {method.name: method for method in _ALL}
DEFAULT_METHOD = "drive"
DENSE = "dense"
CUSTOM = Method(
    name="module",
    course=Course.ROUNDS,
    options=CustomOptions,
    implementation="trainables.pruning.custom_scores:score_custom",
    preflight="trainables.pruning.custom_scores:check_custom_scores",
    description="A function of your own.",
    keeps="the highest scores of a function of your own",
)


def method_of(name: str) -> Method:
    """The method of a name, or of a reference to a function of the user's. Raises KeyError for another name."""
    return CUSTOM if name.startswith(CUSTOM_PREFIX) else METHODS[name]


def is_method(name: str) -> bool:
    return name in METHODS or name.startswith(CUSTOM_PREFIX)


def is_dense(name: str) -> bool:
    """Whether a method is the dense baseline."""
    return name == DENSE


def option_block(name: str) -> str:
    """Key under which a configuration holds the options of a method."""
    return "options" if name.startswith(CUSTOM_PREFIX) else name


def is_option(key: str) -> bool:
    """Whether a dotted key of a configuration is an option of a method."""
    block = key.partition(".")[0]
    return block == "options" or (block in METHODS and bool(METHODS[block].options.rules()))
