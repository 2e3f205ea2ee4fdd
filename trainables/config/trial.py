"""What decides a trial's numbers, and what follows from it about its course.

Users write sparsity (share of prunable weights that are zero); code works with counts (counts.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from trainables.config.method import Course, Method
from trainables.config.methods import DEFAULT_METHOD, method_of, option_block
from trainables.config.options import Options

Loss = Literal["cross_entropy"]
Initialization = Literal["fan_in", "fan_out"]
Schedule = Literal["milestones", "cosine"]
Budget = Literal["sparse", "total"]
Precision = Literal["auto", "fp32", "bf16"]
Augment = Literal["auto", "none", "crop", "crop_flip"]

AXES = ("sparsity", "warmup_epochs", "prune_iterations", "seed")  # which tables and names of trials have a place for
REWIND = re.compile(r"none|init|epoch \d+")


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetConfig:
    """Which images a trial sees; where they lie is not part of it.

    Attributes:
        image_size: side in pixels that the images of an `image_folder` or of `imagenet` are scaled to; None is the data
            set's own.
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


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialConfig:
    """Everything that decides one trial's numbers; under the same fingerprint equal configs give equal bits.

    Attributes:
        width: factor of the channels of a CIFAR ResNet.
        initialization: whether Kaiming's variance counts a layer's inputs or outputs; not for a network of the user's.
        initial_weights: starts from the weights of a file; where it lies is not part of it.
        options: of the method; those of another method, such as `replace` leaves behind, become the method's defaults.
    """

    dataset: DatasetConfig
    model: str
    method: str = DEFAULT_METHOD
    warmup_epochs: int = 0
    prune_iterations: int = 1
    sparsity: float = 0.0
    rewind: str = "none"
    seed: int = 0
    precision: Precision = "auto"
    warmup: WarmupConfig = field(default_factory=WarmupConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    prunable: PrunableConfig = field(default_factory=PrunableConfig)
    width: int = 1
    initialization: Initialization = "fan_in"
    sanity: SanityConfig = field(default_factory=SanityConfig)
    initial_weights: bool = False
    options: Options = field(default_factory=Options)

    def __post_init__(self) -> None:
        if type(self.options) is not self.pruning.options:  # none were given, or they are another method's
            object.__setattr__(self, "options", self.pruning.options())

    @property
    def pruning(self) -> Method:
        """The entry of the method in the table of methods."""
        return method_of(self.method)

    @property
    def option_block(self) -> str:
        """Key under which the options are written."""
        return option_block(self.method)

    @property
    def is_dense(self) -> bool:
        return self.pruning.course is Course.DENSE

    @property
    def sparse_epochs(self) -> int:
        """Epochs of training after pruning."""
        if self.training.budget == "total":
            return self.training.epochs - self.warmup_epochs
        return self.training.epochs

    @property
    def total_epochs(self) -> int:
        """Epochs of the training that the final network has seen: those of levels only choose its weights."""
        return self.warmup_epochs + self.sparse_epochs

    @property
    def rounds(self) -> int:
        """Rounds of score and mask that this trial really runs, before, between or during training; levels where there are."""
        course = self.pruning.course
        if course.uses_iterations:
            return self.prune_iterations
        if course is Course.LEVELS:
            return self.options.levels(self.sparsity)
        return 1 if course is Course.ONE_ROUND else 0

    @property
    def level_epochs(self) -> int:
        """Epochs that all levels of iterative pruning train; the sparse training comes after them."""
        return self.rounds * self.sparse_epochs if self.pruning.course is Course.LEVELS else 0

    @property
    def trained_epochs(self) -> int:
        """All epochs that the trial costs, its warm-up as if it were not shared."""
        return self.level_epochs + self.total_epochs

    @property
    def rewind_epoch(self) -> int | None:
        """Warm-up epoch whose weights the sparse training starts from (0 is initialisation); None keeps the weights."""
        if self.pruning.course is Course.LEVELS:
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
