"""Keys of a sweep file that decide the numbers of its trials, each with type, range, default and meaning.

Defaults are those of trainables/config/trial.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import ConfigDict, Field, Strict, create_model

from orchestrator.spec.field_types import (
    CUSTOM_FUNCTION,
    DEFAULT,
    ImageSize,
    Integer,
    Iterations,
    Limit,
    LossName,
    Methods,
    Milestones,
    ModelName,
    RuleText,
    Share,
    SourceName,
    SpecModel,
    Text,
    WarmupEpochs,
)
from orchestrator.spec.method_options import option_fields
from trainables.config.spiking import SpikingRule
from trainables.config.trial import (
    REWIND,
    Augment,
    Block,
    Budget,
    Granularity,
    Initialization,
    LayerSparsity,
    Precision,
    Schedule,
    StabilityMeasure,
)
from trainables.data.table import DATASETS

DOWNLOADS = [name for name, dataset in DATASETS.items() if dataset.can_download]
SCALED = [name for name, dataset in DATASETS.items() if dataset.image_size != "refused"]


def _name_or_module(schema: dict[str, Any]) -> None:
    """Adds `module: FILE.FUNCTION` as an alternative to `name` to the schema of `dataset` (loader.py makes it a name)."""
    schema["properties"]["module"] = CUSTOM_FUNCTION["properties"]["module"]
    schema["oneOf"] = [{"required": ["name"]}, {"required": ["module"]}]
    del schema["required"]


class Dataset(SpecModel):
    model_config = ConfigDict(json_schema_extra=_name_or_module)

    name: SourceName = Field(description="Data set; digits comes with the program, image_folder is for your images.")
    root: Text | None = Field(default=None, description="Folder of its files, absolute or relative to the current folder.")
    download: bool = Field(
        default=False,
        description=f"Download {', '.join(DOWNLOADS[:-1])} or {DOWNLOADS[-1]} into root if the files are missing.",
    )
    image_size: ImageSize | None = Field(
        default=DEFAULT.dataset.image_size,
        description=f"Side in pixels to which images of {' and '.join(SCALED)} are scaled; imagenet uses 224 by default.",
    )
    limit: Limit | None = Field(
        default=DEFAULT.dataset.limit,
        description="Number of training images, including validation; the test set is limited to a fifth of it. Classes keep "
        "their shares.",
    )
    validation: float = Field(
        default=DEFAULT.dataset.validation,
        ge=0,
        le=0.5,
        description="Share of each class's training images that is held out for model selection.",
    )
    split_seed: Integer = Field(
        default=DEFAULT.dataset.split_seed, ge=0, description="Seed of the limit and of the validation split."
    )
    augment: Augment = Field(
        default=DEFAULT.dataset.augment,
        description="crop_flip pads by 4, crops and flips (imagenet: random resized crop); auto is none for digits and "
        "crop_flip for all others.",
    )
    prescaled: bool = Field(
        default=DEFAULT.dataset.prescaled,
        description="Of imagenet, decode each image once per node into a cache of smaller images (350 GB), from which random "
        "crops are then taken; evaluation has the same pixels.",
    )


class Warmup(SpecModel):
    lr: float | None = Field(
        default=DEFAULT.warmup.lr, gt=0, description="Constant learning rate of the warm-up; training.lr by default."
    )
    most: Integer = Field(default=20, ge=2, description="Of warmup_epochs auto, the epochs after which it ends in any case.")
    rule: StabilityMeasure = Field(
        default=DEFAULT.warmup.rule,
        description="Of warmup_epochs auto, what tells that the mask is stable: the early pruning indicator, which looks at "
        "the layers' counts alone, or the overlap of the kept weights.",
    )
    threshold: float | None = Field(
        default=DEFAULT.warmup.threshold,
        ge=0,
        le=1,
        description="Of warmup_epochs auto, the value from which on the mask is stable; the default depends on the rule.",
    )
    window: Integer = Field(
        default=DEFAULT.warmup.window, ge=1, description="Of warmup_epochs auto, the earlier epochs to compare with."
    )


class AutoIterations(SpecModel):
    most: Integer = Field(default=64, ge=2, description="Of prune_iterations auto, the largest number that is tried.")
    threshold: float = Field(
        default=DEFAULT.iterations.threshold,
        ge=0,
        le=1,
        description="Of prune_iterations auto, the overlap of the masks of n and 2n iterations from which on n are enough.",
    )


class Spiking(SpecModel):
    rule: SpikingRule = Field(
        default=DEFAULT.training.spiking.rule,
        description="Gradient of neurons that spike in the place of ReLUs, by SLTT (arXiv:2302.14311): without paths through "
        "time (sltt), so in some steps alone (sltt-k), or with them (bptt); none is for networks that do not spike.",
    )
    steps: Integer = Field(default=DEFAULT.training.spiking.steps, ge=1, description="Time steps for each image.")
    sampled_steps: Integer = Field(
        default=DEFAULT.training.spiking.sampled_steps,
        ge=1,
        description="Of rule sltt-k, the steps of each batch that have a gradient, drawn anew for every batch.",
    )
    tau: float = Field(
        default=DEFAULT.training.spiking.tau,
        ge=1,
        description="Time constant of the neurons in steps: the share 1 - 1 / tau of a voltage is left after a step.",
    )
    mse_share: float = Field(
        default=DEFAULT.training.spiking.mse_share,
        ge=0,
        lt=1,
        description="Share of the loss that is the mean squared distance of all class scores from 1.",
    )


class Training(SpecModel):
    epochs: Integer = Field(
        default=DEFAULT.training.epochs, ge=1, description="Epochs after pruning; with budget total, including the warm-up."
    )
    batch_size: Integer = Field(default=DEFAULT.training.batch_size, ge=2, description="Images per step.")
    lr: float = Field(default=DEFAULT.training.lr, gt=0, description="Initial learning rate of SGD.")
    momentum: float = Field(default=DEFAULT.training.momentum, ge=0, lt=1, description="Momentum of SGD.")
    nesterov: bool = Field(
        default=DEFAULT.training.nesterov, description="Whether to use Nesterov momentum, which requires momentum > 0."
    )
    weight_decay: float = Field(default=DEFAULT.training.weight_decay, ge=0, description="L2 penalty.")
    milestones: Milestones = Field(
        default=DEFAULT.training.milestones,
        description="Epochs after which lr is multiplied by gamma; by default after half and three quarters of the epochs.",
    )
    gamma: float = Field(default=DEFAULT.training.gamma, gt=0, le=1, description="Factor of the learning rate at a milestone.")
    budget: Budget = Field(
        default=DEFAULT.training.budget,
        description="What epochs counts. sparse: only epochs after pruning. total: also the warm-up, so a longer warm-up does "
        "not mean more training.",
    )
    schedule: Schedule = Field(
        default=DEFAULT.training.schedule, description="How lr falls: by gamma at milestones, or by a cosine to 0 over epochs."
    )
    lr_warmup_epochs: Integer = Field(
        default=DEFAULT.training.lr_warmup_epochs, ge=0, description="Number of initial epochs over which lr rises linearly."
    )
    label_smoothing: float = Field(
        default=DEFAULT.training.label_smoothing, ge=0, lt=1, description="Share of the target that is spread over all classes."
    )
    clip_norm: float | None = Field(
        default=DEFAULT.training.clip_norm, gt=0, description="Maximum norm of all gradients together; null disables clipping."
    )
    loss: LossName = Field(
        default=DEFAULT.training.loss, description="Loss for training, scoring and evaluation, by name or as a custom function."
    )
    spiking: Spiking = Field(default=Spiking.defaults(), description="Training of a spiking network.")


class Prunable(SpecModel):
    exclude: Annotated[tuple[Text, ...], Strict(False), RuleText("a list of layer names or shell patterns")] = Field(
        default=DEFAULT.prunable.exclude,
        description="Layers that stay dense: names or shell patterns, such as head or blocks.0.*",
    )


class Target(SpecModel):
    channels: Share | None = Field(
        default=DEFAULT.target.channels, description="Output channels (neurons) of all layers that can lose some."
    )
    parameters: Share | None = Field(default=DEFAULT.target.parameters, description="All parameters of the network.")
    multiply_adds: Share | None = Field(default=DEFAULT.target.multiply_adds, description="Multiply-adds for one image.")
    latency: Share | None = Field(
        default=DEFAULT.target.latency, description="Time by the timing table; also of single weights with layer_sparsity spdy."
    )


class Spdy(SpecModel):
    search: bool = Field(
        default=DEFAULT.spdy.search,
        description="Whether to search for the weight of each layer's error; otherwise all weigh the same.",
    )
    starts: Integer = Field(default=DEFAULT.spdy.starts, ge=1, description="Random weights that the search begins with.")
    misses: Integer = Field(
        default=DEFAULT.spdy.misses, ge=1, description="Changes in a row without improvement after which it ends."
    )
    samples: Integer = Field(
        default=DEFAULT.spdy.samples, ge=1, description="Training images to judge choices and to reconstruct layers; or all."
    )
    passes: Integer = Field(
        default=DEFAULT.spdy.passes, ge=0, description="Over these images, to reconstruct a layer at one sparsity."
    )
    global_passes: Integer = Field(
        default=DEFAULT.spdy.global_passes, ge=0, description="The same to reconstruct all layers together in the end."
    )


class Sanity(SpecModel):
    shuffle: bool = Field(default=DEFAULT.sanity.shuffle, description="Permute the final mask within every layer.")
    reinitialize: bool = Field(
        default=DEFAULT.sanity.reinitialize, description="Start sparse training from a new initialisation."
    )
    invert: bool = Field(default=DEFAULT.sanity.invert, description="Keep the weights with the lowest scores.")


class _CommonSpec(SpecModel):
    """Keys that apply to trials of all methods."""

    dataset: Dataset = Field(description="The data set.")
    model: ModelName = Field(description="The network, by name or as a custom function.")
    method: Methods = Field(
        default=(DEFAULT.method,), description="Pruning method, or a list of methods; dense trains without pruning."
    )
    warmup_epochs: WarmupEpochs = Field(
        default=DEFAULT.warmup_epochs, description="Dense epochs before pruning; auto ends when the mask is stable."
    )
    prune_iterations: Iterations = Field(
        default=DEFAULT.prune_iterations,
        description="Rounds of scoring and pruning in which the sparsity is reached; auto doubles them until the mask hardly "
        "changes.",
    )
    sparsity: float = Field(
        default=DEFAULT.sparsity, ge=0, lt=1, description="Share of the prunable weights that are zero at the end."
    )
    rewind: Annotated[str, RuleText("none, init or epoch K, K a whole number")] = Field(
        default=DEFAULT.rewind,
        pattern=f"^({REWIND.pattern})$",
        description="Weights that sparse training starts from: as pruned (none), initial (init), or after warm-up epoch K.",
    )
    seed: Integer = Field(default=DEFAULT.seed, ge=0, description="Seed of initialisation, data order and augmentation.")
    precision: Precision = Field(
        default=DEFAULT.precision,
        description="Precision of the forward pass; auto is bf16 if the hardware has bf16 arithmetic.",
    )
    warmup: Warmup = Field(default=Warmup.defaults(), description="Dense training before pruning.")
    iterations: AutoIterations = Field(default=AutoIterations.defaults(), description="The choice of prune_iterations auto.")
    training: Training = Field(default=Training.defaults(), description="Sparse training after pruning.")


if TYPE_CHECKING:  # created at run time, with a field for each method that has options

    class _MethodSpec(_CommonSpec):
        pass

else:
    _MethodSpec = create_model("_MethodSpec", __base__=_CommonSpec, **option_fields())


class TrialSpec(_MethodSpec):
    """Keys that decide the numbers of the trials."""

    sanity: Sanity = Field(
        default=Sanity.defaults(), description="Sanity checks, each of which removes one part of the method."
    )
    width: Integer = Field(default=DEFAULT.width, ge=1, description="Factor of the channels of a CIFAR ResNet.")
    block: Block = Field(
        default=DEFAULT.block,
        description="What 3x3 convolutions are trained as before pruning: plain ones, or blocks of six branches (OREPA, "
        "arXiv:2204.00826) that are squeezed into plain ones.",
    )
    initialization: Initialization = Field(
        default=DEFAULT.initialization,
        description="Kaiming normal initialisation, scaled by the inputs or the outputs of a layer.",
    )
    prunable: Prunable = Field(default=Prunable.defaults(), description="Which convolutional and linear layers may be pruned.")
    layer_sparsity: LayerSparsity = Field(
        default=DEFAULT.layer_sparsity,
        description="Of single weights, whether scores decide over all layers together, or each layer keeps a share: the same "
        "(uniform), that of Erdos-Renyi-Kernel (erk), or what costs least within target.latency (spdy).",
    )
    spdy: Spdy = Field(default=Spdy.defaults(), description="The search of layer_sparsity spdy.")
    granularity: Granularity = Field(
        default=DEFAULT.granularity,
        description="What is removed together: single weights, or whole channels, after which the network is smaller.",
    )
    compensate: bool = Field(
        default=DEFAULT.compensate,
        description="Of granularity channel, whether the layers that read removed channels are fitted to those that remain.",
    )
    target: Target = Field(
        default=Target.defaults(),
        description="Of granularity channel, what pruning reduces instead of weights: the share of one of these that remains. "
        "latency is also of layer_sparsity spdy.",
    )
