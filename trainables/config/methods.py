"""The table of pruning methods: everything about a method except its code.

The sweep file's schema and template, the guide's tables, trial keys, the course of a trial, and its scorer or mask updater all
follow from the table. To add a method, write its scorer or mask updater in `pruning/`, and add its options and its entry here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Literal

from trainables.config.counts import imp_levels, kept_count
from trainables.config.method import EPI_OF_MAGNITUDES, Course, Method
from trainables.config.options import BatchNormMode, CustomOptions, ImageRounds, OptionConflict, Options, Rounds, option

Normalize = Literal["mean", "sum", "rank", "none"]

CUSTOM_PREFIX = "module:"  # of a reference to a custom function, module:FILE.FUNCTION
SCORERS = "trainables.pruning.scorers"
CHANNEL_SCORERS = "trainables.pruning.channel_scorers"
BATCH_NORM = "Statistics that BN uses while scoring: of the batch, or running."
NO_CURVATURE = "its scores need second derivatives, which spikes do not have"
IMAGES_PER_CLASS = "Images of each class that a score uses; null uses training batches."


@dataclass(frozen=True, kw_only=True, slots=True)
class DriveConfig(ImageRounds):
    """The DRIVE score and its rounds; every default is an assumption (`drive-sweep guide assumptions`)."""

    magnitude: float = option(1.0, "Factor of |w| in the score.", ge=0)
    connection: float = option(1.0, "Factor of |w dL/dw| in the score.", ge=0)
    convergence: float = option(1.0, "Factor of |dL/dw| in the score.", ge=0)
    normalize: Normalize = option("mean", "How the three terms are scaled: by mean, sum, rank or none.")
    score_batches: int = option(1, "Batches over which the gradient of a score is averaged.", ge=1)

    def conflicts(self) -> Iterator[OptionConflict]:
        if self.magnitude == self.connection == self.convergence == 0:
            factors = ("magnitude", "connection", "convergence")
            yield OptionConflict(factors, "not be 0 with both other factors 0", "raise one of the three")


@dataclass(frozen=True, kw_only=True, slots=True)
class SnipConfig(ImageRounds):
    """Connection sensitivity |w dL/dw| (arXiv:1810.02340); with `prune_iterations` > 1 the weights are scored in every round.

    With `batch_norm: running`, BN is the identity before any training.
    """

    images_per_class: int | None = option(None, IMAGES_PER_CLASS, ge=1, decides_preflight=True)
    batch_norm: BatchNormMode = option("batch", BATCH_NORM, decides_preflight=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class GraspConfig(ImageRounds):
    """Gradient signal preservation (arXiv:2002.07376), with a softmax at `temperature` and class-balanced images."""

    temperature: float = option(200.0, "Divisor of the logits in the loss.", gt=0, decides_preflight=True)
    images_per_class: int | None = option(10, IMAGES_PER_CLASS, ge=1, decides_preflight=True)
    batch_norm: BatchNormMode = option("batch", BATCH_NORM, decides_preflight=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class SynflowConfig(Rounds):
    """Synaptic flow (arXiv:2006.05467). The paper prunes in 100 rounds; the number is `prune_iterations`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomConfig(Options):
    """A random mask. `layers` is "uniform" (one density), "erk" (Erdos-Renyi-Kernel, arXiv:1911.11134) or a trial's key."""

    layers: str = option(
        "uniform",
        "One density for all layers, Erdos-Renyi-Kernel densities, or the counts of a finished trial, by its key.",
        pattern="^(uniform|erk|[0-9a-f]{16})$",
        rule="uniform, erk, or the key of a trial, 16 hex digits",
    )

    def weight_conflicts(self) -> Iterator[OptionConflict]:
        if self.layers != "uniform":
            yield OptionConflict(("layers",), "be uniform with granularity channel", "remove it")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImpConfig(Options):
    """Iterative magnitude pruning with rewinding (arXiv:1803.03635, arXiv:1903.01611): train, prune, rewind, again.

    Every level trains as long as the sparse training and rewinds to the end of the warm-up (none: the original lottery ticket).
    It restarts the learning-rate schedule, or with `training.budget: total` continues it from the rewound epoch, as published.
    With `exact`, all levels prune the same share and reach the sparsity; else each prunes `fraction` and the last may go beyond
    it, as published.
    """

    fraction: float = option(0.2, "Share of the remaining weights that a level prunes.", gt=0, lt=1)
    exact: bool = option(True, "Prune a little less at every level, so that the last reaches the sparsity exactly.")

    def weight_conflicts(self) -> Iterator[OptionConflict]:
        if not self.exact:
            yield OptionConflict(("exact",), "be true with granularity channel", "remove it")

    def levels(self, sparsity: float) -> int:
        return imp_levels(sparsity, self.fraction)

    def kept_after_level(self, level: int, prunable: int) -> int | None:
        return None if self.exact else kept_count(1 - (1 - self.fraction) ** level, prunable)


@dataclass(frozen=True, kw_only=True, slots=True)
class GmpConfig(Options):
    """Global gradual magnitude pruning (arXiv:1710.01878): `prune_iterations` updates along a cubic, spread evenly between
    the shares `begin` and `end` of the sparse training."""

    begin: float = option(0.0, "Share of the training after which pruning starts.", ge=0, lt=1)
    end: float = option(0.5, "Share of the training after which the sparsity is reached.", gt=0, le=1)
    initial_sparsity: float = option(0.0, "Sparsity at the beginning of the training.", ge=0, lt=1)

    def conflicts(self) -> Iterator[OptionConflict]:
        if self.begin >= self.end:
            yield OptionConflict(("begin", "end"), "be < {block}.end", "begin earlier or end later")


@dataclass(frozen=True, kw_only=True, slots=True)
class GranetConfig(GmpConfig):
    """Gradual pruning with regrowth (GraNet, arXiv:2106.10404), from a random mask with Erdos-Renyi-Kernel densities.

    Updates continue after `end`, at the same interval.
    """

    initial_sparsity: float = option(0.5, "Sparsity at the beginning of the training.", ge=0, lt=1)
    regrow: float = option(0.5, "Initial share of a layer's weights that an update replaces; falls to 1 %.", ge=0, lt=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class TaylorConfig(Rounds):
    """First-order Taylor score of channels, from the scales and shifts of norm layers (arXiv:2110.12007)."""

    score_batches: int = option(1, "Training batches of a score; each one's absolute value is averaged.", ge=1)
    batch_norm: BatchNormMode = option("batch", BATCH_NORM)


@dataclass(frozen=True, kw_only=True, slots=True)
class HapConfig(Rounds):
    """Hessian-aware sensitivity of channels (HAP, arXiv:2101.08940): Tr(H) ||w||^2 / (2 p) of each filter of p weights.

    With `implant` q, the lowest 1 - q of the channels that fall short are removed, and the others become implants
    (channels/implants.py); the authors take q = 0.1.
    """

    probes: int = option(50, "Random sign vectors with which the trace is estimated.", ge=1)
    score_batches: int = option(1, "Training batches over which the trace is averaged.", ge=1)
    batch_norm: BatchNormMode = option("running", BATCH_NORM)
    clamp: bool = option(False, "Whether negative traces count as 0; otherwise their channels are pruned first.")
    implant: float = option(
        0.0,
        "Share of the channels to prune, the best ones, whose k x k filters keep their centre instead.",
        decides_preflight=True,
        ge=0,
        lt=1,
    )

    def implant_share(self) -> float:
        return self.implant

    def compensation_conflicts(self) -> Iterator[OptionConflict]:
        if self.implant:
            yield OptionConflict(("implant",), "be 0 with compensate, whose fit needs whole filters", "remove one of the two")


@dataclass(frozen=True, kw_only=True, slots=True)
class CapConfig(Options):
    """Greedy selection of input channels by what they explain of a layer's outputs (CaP, arXiv:2108.13728)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PolarizationConfig(Options):
    """The polarization regulariser on scales of norm layers (NeurIPS 2020), then removal of the channels with the lowest."""

    penalty: float = option(1e-4, "Factor of the regulariser in the loss, lambda in the paper.", gt=0)
    strength: float = option(1.2, "Factor t of the scales' sum in the regulariser: the larger, the more scales go to 0.")
    limit: float = option(1.0, "Largest scale; scales are clamped to [0, limit] while the regulariser works.", gt=0)
    end: float = option(0.5, "Share of the sparse training with the regulariser; then channels are removed.", gt=0, lt=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsensusConfig(Options):
    """Gates of channels that learn to agree, then removal of the channels that fewest images need.

    A reconstruction of arXiv:2302.10798 from its abstract; the gates and the loss terms are not the paper's equations.
    """

    penalty: float = option(
        1.0, "Factor of the gates' polarization m (1 - m), m a gate's mean over a batch, in the loss.", ge=0
    )
    activity: float = option(
        4.0, "Factor of the squared distance of the share of open gates from the target's share in the loss.", ge=0
    )
    width: int = option(16, "Hidden features of the module that computes the gates of a group of channels.", ge=1)
    end: float = option(0.5, "Share of the sparse training with gates; then channels are removed.", gt=0, lt=1)

    def additional_numbers(self, shapes: Iterable[tuple[int, ...]]) -> int:
        return sum(self.width * (shape[1] + 1 + shape[0]) + shape[0] for shape in shapes)


def _check_n_of_m(pattern: str) -> None:
    n, _, m = pattern.partition(":")
    if not 0 < int(n) < int(m):
        raise ValueError("not N of M")


@dataclass(frozen=True, kw_only=True, slots=True)
class SrsteConfig(Options):
    """N:M sparsity by the sparse-refined straight-through estimator (SR-STE, arXiv:2102.04010, equation 9).

    A layer stays dense if the number of its input channels is not a multiple of M.
    """

    pattern: str = option(
        "2:4",
        "The N largest of every M weights along the input channels are kept, which determines the sparsity.",
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
        size = prod(shape)
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
        keeps="the highest sum of three terms, see [assumptions](assumptions.md)",
        source="arXiv:2404.03687",
    ),
    Method(
        name="snip",
        course=Course.ROUNDS,
        options=SnipConfig,
        implementation=f"{SCORERS}:score_snip",
        description="Connection sensitivity alone.",
        keeps="connection sensitivity \\|w dL/dw\\|, scored again in each iteration",
        source="arXiv:1810.02340",
    ),
    Method(
        name="grasp",
        course=Course.ROUNDS,
        options=GraspConfig,
        implementation=f"{SCORERS}:score_grasp",
        preflight=f"{SCORERS}:check_second_derivative",
        spiking_problem=NO_CURVATURE,
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
        spiking_problem="its flow needs outputs that are sums of products of weights",
        description="Synaptic flow, without data.",
        keeps="synaptic flow without data, without BN, in float64; use 100 iterations",
        source="arXiv:2006.05467",
    ),
    Method(
        name="magnitude",
        course=Course.ONE_ROUND,
        implementation=f"{SCORERS}:score_magnitude",
        description="Magnitude of the weights.",
        keeps="\\|w\\|",
        stable_epi=EPI_OF_MAGNITUDES,
    ),
    Method(
        name="random",
        course=Course.ONE_ROUND,
        options=RandomConfig,
        implementation=f"{SCORERS}:score_random",
        is_ranking=False,
        description="A random mask.",
        keeps="random weights; `random.layers` sets the densities of the layers",
        source="arXiv:1911.11134",
        stable_epi=EPI_OF_MAGNITUDES,
    ),
    Method(
        name="imp",
        course=Course.LEVELS,
        options=ImpConfig,
        implementation=f"{SCORERS}:score_magnitude",  # of the fully trained weights
        description="Iterative magnitude pruning: train, prune, rewind to the warm-up, repeat.",
        keeps="\\|w\\| after full training, a fifth less at every level, then rewinds to the end of the warm-up",
        source="arXiv:1903.01611",
        stable_epi=EPI_OF_MAGNITUDES,
    ),
    Method(
        name="gmp",
        course=Course.GRADUAL,
        options=GmpConfig,
        implementation="trainables.pruning.gradual_masks:GmpMasks",
        description="Gradual magnitude pruning during training.",
        keeps="\\|w\\| during training, on a cubic schedule of `prune_iterations` updates",
        source="arXiv:1710.01878",
        stable_epi=EPI_OF_MAGNITUDES,
    ),
    Method(
        name="granet",
        course=Course.GRADUAL,
        options=GranetConfig,
        implementation="trainables.pruning.gradual_masks:GranetMasks",
        description="Gradual magnitude pruning during training, with regrowth.",
        keeps="as `gmp`; every update also replaces the smallest weights by those with the largest gradients",
        source="arXiv:2106.10404",
        stable_epi=EPI_OF_MAGNITUDES,
    ),
    Method(
        name="srste",
        course=Course.EVERY_STEP,
        options=SrsteConfig,
        implementation="trainables.pruning.nm_masks:NMMasks",
        description="N of every M weights, selected at every step.",
        keeps="the N largest of every M weights along the input channels, selected at every step; saved as N:M",
        source="arXiv:2102.04010",
        stable_epi=EPI_OF_MAGNITUDES,
    ),
    Method(
        name="taylor",
        course=Course.ROUNDS,
        options=TaylorConfig,
        implementation=f"{CHANNEL_SCORERS}:score_taylor",
        scores_channels=True,
        description="First-order Taylor score of channels.",
        keeps="channels with the largest \\|gamma dL/dgamma + beta dL/dbeta\\| over their norm layers",
        source="arXiv:2110.12007",
    ),
    Method(
        name="hap",
        course=Course.ROUNDS,
        options=HapConfig,
        implementation=f"{CHANNEL_SCORERS}:score_hap",
        scores_channels=True,
        spiking_problem=NO_CURVATURE,
        description="Hessian-aware sensitivity of channels.",
        keeps="channels with the largest Tr(H) \\|\\|w\\|\\|^2 / (2 p) of their filters, by Hutchinson's estimate",
        source="arXiv:2101.08940",
    ),
    Method(
        name="cap",
        course=Course.ONE_ROUND,
        options=CapConfig,
        implementation=f"{CHANNEL_SCORERS}:score_cap",
        scores_channels=True,
        compensates=True,
        description="Greedy selection of the input channels that explain a layer's outputs, with compensation.",
        keeps="channels that explain most of the outputs of the layers that read them; these are fitted to what remains",
        source="arXiv:2108.13728",
        stable_epi=EPI_OF_MAGNITUDES,
    ),
    Method(
        name="polarization",
        course=Course.ONCE_DURING,
        options=PolarizationConfig,
        implementation="trainables.pruning.polarized_scales:PolarizedScales",
        scores_channels=True,
        description="Polarization of the scales of norm layers during training.",
        keeps="channels with the largest scales of norm layers, after a part of the training with the polarization regulariser",
        source="NeurIPS 2020, polarization regularizer",
        stable_epi=EPI_OF_MAGNITUDES,
    ),
    Method(
        name="consensus",
        course=Course.ONCE_DURING,
        options=ConsensusConfig,
        implementation="trainables.pruning.consensus_gates:ConsensusGates",
        scores_channels=True,
        spiking_problem="its gates see one time step at a time",
        needs_whole_batches=True,
        is_reconstruction=True,
        description="Gates that learn to agree during training; a reconstruction, not the paper's equations.",
        keeps="channels that most images need, by gates that depend on the image and learn to agree; a reconstruction, not the "
        "paper's equations",
        source="after the abstract of arXiv:2302.10798",
        stable_epi=EPI_OF_MAGNITUDES,
    ),
    Method(
        name="dense",
        course=Course.DENSE,
        description="No pruning.",
        keeps="all; one trial per seed is added as the baseline by default",
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
    description="A custom function.",
    keeps="the highest scores of a custom function",
)
