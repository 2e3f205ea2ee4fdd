"""The configuration that decides a trial's numbers, and what follows from it about its course.

Users give a sparsity (share of prunable weights that are zero); the code works with counts (counts.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import Literal

from trainables.config.lookup import method_of, option_block
from trainables.config.method import Course, Method
from trainables.config.methods import DEFAULT_METHOD
from trainables.config.options import Options
from trainables.config.spiking import SpikingConfig

Loss = Literal["cross_entropy"]
Initialization = Literal["fan_in", "fan_out"]
Schedule = Literal["milestones", "cosine"]
Budget = Literal["sparse", "total"]
Precision = Literal["auto", "fp32", "bf16"]
Augment = Literal["auto", "none", "crop", "crop_flip"]
StabilityMeasure = Literal["epi", "overlap"]
Granularity = Literal["weight", "channel"]
Block = Literal["plain", "orepa"]
LayerSparsity = Literal["global", "uniform", "erk", "spdy"]

AXES = ("sparsity", "warmup_epochs", "prune_iterations", "seed")  # with a fixed position in tables and in names of trials
REWIND = re.compile(r"none|init|epoch \d+")


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetConfig:
    """Which images a trial uses; their location is not part of it.

    Attributes:
        image_size: side in pixels to which images of an `image_folder` or of `imagenet` are scaled; None is the default of
            the data set.
        limit: number of training images, including validation; the test set is limited to limit // 5. Classes keep their
            shares.
        validation: share of each class's training images that is held out for model selection, in [0, 1); the rule is in
            data/split_counts.py.
        split_seed: seed of the limit and of the validation split; not the trial's seed, so that all seeds share splits.
        augment: "auto" is "none" for digits and "crop_flip" for every other data set. A crop is from the image padded by 4;
            for imagenet it has random area and shape and is scaled to `image_size`.
        prescaled: images of imagenet are kept on the node with the shorter side scaled to 256/224 of `image_size`, and random
            crops are taken from these (data/prescaled.py).
    """

    name: str
    image_size: int | None = None
    limit: int | None = None
    validation: float = 0.1
    split_seed: int = 0
    augment: Augment = "auto"
    prescaled: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class WarmupConfig:
    """Dense training before pruning; `lr` None means `training.lr`. The rate is constant, so warm-ups can be shared.

    Attributes:
        auto: the warm-up ends when its mask is stable (trial/mask_stability.py); `warmup_epochs` is then the most.
        rule: what is measured: the early pruning indicator, or the overlap of the kept weights.
        threshold: from which value on the mask is stable; None is the default of the rule and the method.
        window: number of earlier epochs that an epoch is compared with.
    """

    lr: float | None = None
    auto: bool = False
    rule: StabilityMeasure = "epi"
    threshold: float | None = None
    window: int = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class IterationsConfig:
    """With `auto` the number of iterations is doubled until that hardly changes the mask; `prune_iterations` is the most.

    Attributes:
        threshold: chance-corrected overlap of the masks of n and 2n iterations from which on n are enough.
    """

    auto: bool = False
    threshold: float = 0.6


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """Sparse training by SGD after pruning (for the dense baseline: the whole training).

    Attributes:
        epochs: sparse epochs; with budget "total", warm-up and sparse epochs together.
        milestones: epochs after which the rate is multiplied by gamma; None is half and three quarters of the epochs.
        schedule: "milestones", or "cosine" from lr to 0 over the epochs.
        lr_warmup_epochs: first epochs of the schedule, over which the rate rises linearly to lr.
        clip_norm: maximum norm of all gradients together; None disables clipping.
        budget: "sparse" restarts the schedule after pruning; "total" continues it where the warm-up ended.
        loss: cross_entropy, or a custom function (custom/references.py), which excludes label smoothing.
        spiking: whether the network is a spiking one.
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
    spiking: SpikingConfig = field(default_factory=SpikingConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class PrunableConfig:
    """Convolutional and linear weights are prunable, except in layers whose name matches a shell pattern of `exclude`."""

    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class SanityConfig:
    """Sanity checks of a mask (arXiv:2009.08576, arXiv:2009.11094); each changes a single thing.

    Attributes:
        shuffle: the final mask is permuted within every layer.
        reinitialize: sparse training starts from a new initialisation.
        invert: the weights with the lowest scores are kept.
    """

    shuffle: bool = False
    reinitialize: bool = False
    invert: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetConfig:
    """What pruning reduces instead of the number of weights: the share of the dense network's that remains, of one of these.

    Attributes:
        channels: output channels (neurons) of all layers that can lose some, as in arXiv:2110.12007.
        parameters: all parameters.
        multiply_adds: for one image (analysis/multiply_adds.py).
        latency: the time of the network by a timing table (custom/timing_table.py).
    """

    channels: float | None = None
    parameters: float | None = None
    multiply_adds: float | None = None
    latency: float | None = None

    @property
    def given(self) -> dict[str, float]:
        """Quantity -> the share that remains; at most one in a valid configuration."""
        shares = {spec.name: getattr(self, spec.name) for spec in fields(self)}
        return {name: share for name, share in shares.items() if share is not None}

    @property
    def sparsity(self) -> float | None:
        """The share that is removed; None without a target."""
        share = next(iter(self.given.values()), None)
        return None if share is None else round(1 - share, 10)


@dataclass(frozen=True, kw_only=True, slots=True)
class SpdyConfig:
    """The search of layer_sparsity spdy (SPDY, arXiv:2201.13096) for the weight of each layer's error in its choice.

    Attributes:
        search: whether there is one; otherwise all layers weigh the same.
        starts: random choices of all weights, of which the best goes on.
        misses: changes in a row without improvement after which the search ends.
        samples: training images on which a choice is judged and layers are reconstructed.
        passes: over these images, to reconstruct a layer at one sparsity (AdaPrune); 0 leaves the weights as they were.
        global_passes: over these images, in which all layers are reconstructed together in the end.
    """

    search: bool = True
    starts: int = 100
    misses: int = 100
    samples: int = 1024
    passes: int = 10
    global_passes: int = 0


Label = int | str  # of a number that may be automatic


def label_order(label: Label) -> tuple[bool, int]:
    """Sorts numbers before the word auto."""
    return (False, label) if isinstance(label, int) else (True, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialConfig:
    """Everything that decides one trial's numbers; with the same fingerprint, equal configs give identical results.

    Attributes:
        width: factor of the channels of a CIFAR ResNet.
        block: what a 3x3 convolution is trained as before pruning (models/blocks.py).
        initialization: whether Kaiming's variance is by a layer's inputs or outputs; not used by custom networks.
        initial_weights: whether training starts from the weights of a file; its path is not part of the config.
        norm_parts: into which batch norm divides a batch: the workers of a trial without resources.sync_batch_norm.
        layer_sparsity: of single weights, whether one threshold decides for the whole network, or each layer keeps a share:
            the same, or that of Erdos-Renyi-Kernel (pruning/sparsity_distributions.py), or what costs the least accuracy
            within the target of latency (pruning/spdy_selection.py).
        granularity: what is removed together: single weights, or whole channels with all that makes and reads them.
        target: what `sparsity` is a share of, if not of the prunable weights; `sparsity` is then the share that it removes.
        compensate: whether the layers that read removed channels are fitted to those that remain (channels/compensation.py).
        spdy: of layer_sparsity spdy.
        options: of the method; options of another method, as `replace` may leave, become the method's defaults.
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
    iterations: IterationsConfig = field(default_factory=IterationsConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    prunable: PrunableConfig = field(default_factory=PrunableConfig)
    width: int = 1
    block: Block = "plain"
    initialization: Initialization = "fan_in"
    sanity: SanityConfig = field(default_factory=SanityConfig)
    initial_weights: bool = False
    norm_parts: int = 1
    layer_sparsity: LayerSparsity = "global"
    granularity: Granularity = "weight"
    target: TargetConfig = field(default_factory=TargetConfig)
    compensate: bool = False
    spdy: SpdyConfig = field(default_factory=SpdyConfig)
    options: Options = field(default_factory=Options)

    def __post_init__(self) -> None:
        if type(self.options) is not self.pruning.options:  # the default, or options of another method
            object.__setattr__(self, "options", self.pruning.options())

    @property
    def pruning(self) -> Method:
        """The entry of the method in the table of methods."""
        return method_of(self.method)

    @property
    def option_block(self) -> str:
        """Key of the options in the sweep file."""
        return option_block(self.method)

    @property
    def is_dense(self) -> bool:
        return self.pruning.course is Course.DENSE

    @property
    def prunes_channels(self) -> bool:
        return self.granularity == "channel"

    @property
    def compensates(self) -> bool:
        return self.compensate or self.pruning.compensates

    @property
    def uses_timings(self) -> bool:
        """Whether the timing table of the sweep decides what is pruned."""
        return self.target.latency is not None

    @property
    def searches_layers(self) -> bool:
        return self.layer_sparsity == "spdy" and self.spdy.search

    @property
    def quantity(self) -> str:
        """What `sparsity` is a share of: weights, or the quantity of the target."""
        return next(iter(self.target.given), "weights")

    @property
    def sparse_epochs(self) -> int:
        """Epochs of training after pruning."""
        if self.training.budget == "total":
            return self.training.epochs - self.warmup_epochs
        return self.training.epochs

    @property
    def total_epochs(self) -> int:
        """Epochs that the final network was trained for, without those of levels, which only select its weights."""
        return self.warmup_epochs + self.sparse_epochs

    @property
    def rounds(self) -> int:
        """Pruning rounds that this trial runs before or during training; levels if the method has them."""
        course = self.pruning.course
        if course.uses_iterations:
            return self.prune_iterations
        if course is Course.LEVELS:
            return self.options.levels(self.sparsity)
        return 1 if course in (Course.ONE_ROUND, Course.ONCE_DURING) else 0

    @property
    def level_epochs(self) -> int:
        """Epochs that all levels of iterative pruning train together, before the sparse training."""
        return self.rounds * self.sparse_epochs if self.pruning.course is Course.LEVELS else 0

    @property
    def trained_epochs(self) -> int:
        """All epochs that the trial trains, including its warm-up even if it is shared."""
        return self.level_epochs + self.total_epochs

    @property
    def rewind_epoch(self) -> int | None:
        """Warm-up epoch whose weights the sparse training starts from; 0 is the initialisation, None keeps the weights."""
        if self.pruning.course is Course.LEVELS:
            return self.warmup_epochs
        if self.rewind == "none":
            return None
        return 0 if self.rewind == "init" else int(self.rewind.removeprefix("epoch "))

    @property
    def warmup_lengths(self) -> tuple[int, ...]:
        """Epochs of the shared warm-up whose weights this trial uses, ascending; empty if it uses none."""
        return tuple(sorted({length for length in (self.warmup_epochs, self.rewind_epoch) if length}))

    @property
    def warmup_label(self) -> Label:
        """The warm-up as it was asked for: its epochs, or auto."""
        return "auto" if self.warmup.auto else self.warmup_epochs

    @property
    def iterations_label(self) -> Label:
        """The iterations as they were asked for: their number, or auto."""
        return "auto" if self.iterations.auto else self.rounds

    @property
    def warmup_lr(self) -> float:
        return self.training.lr if self.warmup.lr is None else self.warmup.lr
