"""What decides a trial's numbers, and what follows from it about its course.

Users write sparsity (share of prunable weights that are zero); everything below `final_count` works with counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from decimal import ROUND_FLOOR, Decimal
from typing import Literal

from trainables.config.methods import (
    COUNTS_ITERATIONS,
    SCORED_ONCE,
    DriveConfig,
    GmpConfig,
    GranetConfig,
    GraspConfig,
    ImpConfig,
    Method,
    RandomConfig,
    SanityConfig,
    SnipConfig,
    SrsteConfig,
    SynflowConfig,
)

Model = Literal[
    "convnet",
    "resnet20",
    "resnet18",
    "lenet300",
    "alexnet",
    "vgg11",
    "vgg16",
    "vgg19",
    "resnet32",
    "resnet56",
    "resnet34",
    "resnet50",
]
Loss = Literal["cross_entropy"]
Initialization = Literal["fan_in", "fan_out"]
Schedule = Literal["milestones", "cosine"]
Budget = Literal["sparse", "total"]
Precision = Literal["auto", "fp32", "bf16"]
Augment = Literal["auto", "none", "crop", "crop_flip"]

WITH_WIDTH = ("resnet20", "resnet32", "resnet56")
IMAGE_SIDE = {  # of data sets whose images have one size, and of imagenet where none is given
    "digits": 8,
    "fashion_mnist": 28,
    "cifar10": 32,
    "cifar100": 32,
    "tiny_imagenet": 64,
    "imagenet": 224,
}

REWIND = re.compile(r"none|init|epoch \d+")


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetConfig:
    """Which images a trial sees; where they lie is not part of it.

    Attributes:
        image_size: side in pixels that the images of an `image_folder` or of `imagenet` are scaled to; None is what IMAGE_SIDE
            says of the data set.
        limit: number of training images, validation included; limit // 5 test images go with it. Classes keep their shares.
        validation: share of the training images that is held out for model selection, in [0, 1); of every class the same.
            Balanced classes give equal numbers to both; data/split_counts.py has the rule.
        split_seed: seed of the limit and of the validation split; apart from the trial's seed so that seeds share splits.
        augment: "auto" is "none" for digits and "crop_flip" for every other data set; a crop is one of the image padded by 4,
            of imagenet one of random area and shape that is scaled to `image_size`.
    """

    name: str
    image_size: int | None = None
    limit: int | None = None
    validation: float = 0.1
    split_seed: int = 0
    augment: Augment = "auto"

    @property
    def side(self) -> int | None:
        """Pixels in a row of an image as networks see it; None only where image_size is missing."""
        return self.image_size or IMAGE_SIDE.get(self.name)


@dataclass(frozen=True, kw_only=True, slots=True)
class WarmupConfig:
    """Dense training before pruning; `lr` None means `training.lr`. The rate is constant, so warm-ups can be shared."""

    lr: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """Sparse training by SGD after pruning (for the dense baseline: the whole training).

    Attributes:
        epochs: sparse epochs; with budget "total", warm-up and sparse epochs together.
        milestones: epochs of the schedule after which the rate is multiplied by gamma; None is half and three quarters.
        schedule: "cosine" falls from lr to 0 over the epochs instead.
        lr_warmup_epochs: epochs over which the rate rises linearly to lr, before and inside the schedule.
        clip_norm: largest norm of all gradients together; None clips nothing.
        budget: "sparse" restarts the schedule after pruning; "total" continues it where the warm-up ended.
        loss: cross_entropy, or a function of the user's (custom/references.py); then without label smoothing.
    """

    epochs: int = 160
    batch_size: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    milestones: tuple[int, ...] | None = None
    gamma: float = 0.1
    budget: Budget = "sparse"
    schedule: Schedule = "milestones"
    lr_warmup_epochs: int = 0
    label_smoothing: float = 0.0
    clip_norm: float | None = None
    loss: str = "cross_entropy"


@dataclass(frozen=True, kw_only=True, slots=True)
class PrunableConfig:
    """Conv and linear weights are prunable, except layers whose name matches a pattern of `exclude` (shell wildcards)."""

    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialConfig:
    """Everything that decides one trial's numbers; under the same fingerprint equal configs give equal bits.

    Attributes:
        width: factor of the channels of a CIFAR ResNet (WITH_WIDTH).
        initialization: whether Kaiming's variance counts a layer's inputs or outputs; not for a network of the user's.
        initial_weights: starts from the weights of a file; where it lies is not part of it.
    """

    dataset: DatasetConfig
    model: str
    method: Method = "drive"
    warmup_epochs: int = 0
    prune_iterations: int = 1
    sparsity: float = 0.0
    rewind: str = "none"
    seed: int = 0
    precision: Precision = "auto"
    warmup: WarmupConfig = field(default_factory=WarmupConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    drive: DriveConfig = field(default_factory=DriveConfig)
    prunable: PrunableConfig = field(default_factory=PrunableConfig)
    width: int = 1
    initialization: Initialization = "fan_in"
    snip: SnipConfig = field(default_factory=SnipConfig)
    grasp: GraspConfig = field(default_factory=GraspConfig)
    synflow: SynflowConfig = field(default_factory=SynflowConfig)
    random: RandomConfig = field(default_factory=RandomConfig)
    imp: ImpConfig = field(default_factory=ImpConfig)
    gmp: GmpConfig = field(default_factory=GmpConfig)
    granet: GranetConfig = field(default_factory=GranetConfig)
    srste: SrsteConfig = field(default_factory=SrsteConfig)
    sanity: SanityConfig = field(default_factory=SanityConfig)
    initial_weights: bool = False

    @property
    def sparse_epochs(self) -> int:
        """Epochs of training after pruning."""
        if self.training.budget == "total":
            return self.training.epochs - self.warmup_epochs
        return self.training.epochs

    @property
    def total_epochs(self) -> int:
        """Epochs of the training that the final network has seen: those of imp's levels only choose its weights."""
        return self.warmup_epochs + self.sparse_epochs

    @property
    def rounds(self) -> int:
        """Rounds of score and mask that this trial really runs, before, between or during training; levels for imp."""
        if self.method in COUNTS_ITERATIONS:
            return self.prune_iterations
        if self.method == "imp":
            return imp_levels(self.sparsity, self.imp.fraction)
        return 1 if self.method in SCORED_ONCE else 0

    @property
    def level_epochs(self) -> int:
        """Epochs that all levels of iterative magnitude pruning train; the sparse training comes after them."""
        return self.rounds * self.sparse_epochs if self.method == "imp" else 0

    @property
    def trained_epochs(self) -> int:
        """All epochs that the trial costs, its warm-up as if it were not shared."""
        return self.level_epochs + self.total_epochs

    @property
    def rewind_epoch(self) -> int | None:
        """Warm-up epoch whose weights the sparse training starts from (0 is initialisation); None keeps the weights."""
        if self.method == "imp":
            return self.warmup_epochs
        if self.rewind == "none":
            return None
        return 0 if self.rewind == "init" else int(self.rewind.removeprefix("epoch "))

    @property
    def warmup_lengths(self) -> tuple[int, ...]:
        """Lengths at which this trial reads the dense trunk, ascending; empty if it never does."""
        return tuple(sorted({length for length in (self.warmup_epochs, self.rewind_epoch) if length}))

    @property
    def warmup_lr(self) -> float:
        return self.training.lr if self.warmup.lr is None else self.warmup.lr


def final_count(sparsity: float, prunable: int) -> int:
    """Weights kept at the end: (1 - sparsity) * prunable rounded half up, in decimal, as the sparsity was written.

    Binary floats would round 0.95 of 270,896 differently from what a reader computes by hand.
    """
    exact = (1 - Decimal(repr(float(sparsity)))) * prunable
    return int((exact + Decimal("0.5")).to_integral_value(rounding=ROUND_FLOOR))


def imp_levels(sparsity: float, fraction: float) -> int:
    """Levels after which pruning `fraction` of the rest at each leaves at most 1 - sparsity; 11 for 90 % by a fifth."""
    density, left, levels = 1 - Decimal(repr(float(sparsity))), Decimal(1), 0
    while left > density:
        left *= 1 - Decimal(repr(float(fraction)))
        levels += 1
    return levels
