"""What a sweep file may say: every key with its type, range, default and meaning.

One source for the checks, the wording of errors (error_messages.py), the JSON Schema and which keys may be searched.
Defaults of what decides a trial's numbers are those of trainables/config/trial.py.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetCoreSchemaHandler, Strict, create_model
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from orchestrator.command_line import DEFAULT_STORAGE
from orchestrator.spec.field_types import (
    DEFAULT,
    OWN_FUNCTION,
    Cpus,
    GpuShare,
    ImageSize,
    Integer,
    Limit,
    LossName,
    Methods,
    Milestones,
    ModelName,
    RuleText,
    SourceName,
    SpecModel,
    StorageUri,
    Text,
    Uri,
    no_repeats,
)
from orchestrator.spec.method_options import option_fields
from orchestrator.uris import STORAGE_FORMS
from trainables.config.methods import DEFAULT_METHOD, METHODS
from trainables.config.options import Options
from trainables.config.trial import REWIND, Augment, Budget, Initialization, Precision, Schedule, TrainingConfig, TrialConfig
from trainables.custom.files import SHIPPED_PREFIX, CustomFiles
from trainables.custom.references import is_custom
from trainables.data.source import DatasetSource
from trainables.data.table import DATASETS

DOWNLOADS = [name for name, dataset in DATASETS.items() if dataset.can_download]
SCALED = [name for name, dataset in DATASETS.items() if dataset.image_size != "refused"]
NAME = "[A-Za-z0-9][A-Za-z0-9._-]{0,99}"


def _name_or_module(schema: dict[str, Any]) -> None:
    """The schema of `dataset`, where `module: FILE.FUNCTION` may stand in place of `name` (loader.py puts it there)."""
    schema["properties"]["module"] = OWN_FUNCTION["properties"]["module"]
    schema["oneOf"] = [{"required": ["name"]}, {"required": ["module"]}]
    del schema["required"]


class Dataset(SpecModel):
    model_config = ConfigDict(json_schema_extra=_name_or_module)

    name: SourceName = Field(description="Which data set; digits comes with the program, image_folder is your own.")
    root: Text | None = Field(default=None, description="Folder of its files; a relative one begins at the current folder.")
    download: bool = Field(
        default=False,
        description=f"Fetch {', '.join(DOWNLOADS[:-1])} or {DOWNLOADS[-1]} into root where they are missing.",
    )
    image_size: ImageSize | None = Field(
        default=DEFAULT.dataset.image_size,
        description=f"Side in pixels that images of {' and '.join(SCALED)} are scaled to; imagenet takes 224 without it.",
    )
    limit: Limit | None = Field(
        default=DEFAULT.dataset.limit,
        description="Take so many training images, validation included, and a fifth as many test images; classes keep their "
        "shares.",
    )
    validation: float = Field(
        default=DEFAULT.dataset.validation,
        ge=0,
        le=0.5,
        description="Share of the training images of every class held out for model selection.",
    )
    split_seed: Integer = Field(
        default=DEFAULT.dataset.split_seed, ge=0, description="Seed of the limit and of the validation split."
    )
    augment: Augment = Field(
        default=DEFAULT.dataset.augment,
        description="crop_flip pads by 4, crops and flips (imagenet: random resized crop); auto is none for digits, crop_flip "
        "for all others.",
    )


class Warmup(SpecModel):
    lr: float | None = Field(
        default=DEFAULT.warmup.lr, gt=0, description="Constant learning rate of the warm-up; without it training.lr."
    )


class Training(SpecModel):
    epochs: Integer = Field(
        default=DEFAULT.training.epochs, ge=1, description="Epochs after pruning; with budget total, warm-up included."
    )
    batch_size: Integer = Field(default=DEFAULT.training.batch_size, ge=2, description="Images per step.")
    lr: float = Field(default=DEFAULT.training.lr, gt=0, description="Learning rate of SGD at the first epoch.")
    momentum: float = Field(default=DEFAULT.training.momentum, ge=0, lt=1, description="Momentum of SGD.")
    nesterov: bool = Field(default=DEFAULT.training.nesterov, description="Nesterov's momentum; needs momentum above 0.")
    weight_decay: float = Field(default=DEFAULT.training.weight_decay, ge=0, description="L2 penalty.")
    milestones: Milestones = Field(
        default=DEFAULT.training.milestones,
        description="Epochs after which lr is multiplied by gamma; without it half and three quarters of epochs.",
    )
    gamma: float = Field(default=DEFAULT.training.gamma, gt=0, le=1, description="Factor of the learning rate at a milestone.")
    budget: Budget = Field(
        default=DEFAULT.training.budget,
        description="sparse: epochs begin after pruning. total: the warm-up is part of them, so long warm-ups train no more.",
    )
    schedule: Schedule = Field(
        default=DEFAULT.training.schedule, description="How lr falls: by gamma at milestones, or by a cosine to 0 over epochs."
    )
    lr_warmup_epochs: Integer = Field(
        default=DEFAULT.training.lr_warmup_epochs, ge=0, description="First epochs over which lr rises linearly."
    )
    label_smoothing: float = Field(
        default=DEFAULT.training.label_smoothing, ge=0, lt=1, description="Share of the target spread over all classes."
    )
    clip_norm: float | None = Field(
        default=DEFAULT.training.clip_norm, gt=0, description="Largest norm of all gradients together; null clips nothing."
    )
    loss: LossName = Field(
        default=DEFAULT.training.loss, description="Loss of training, scores and evaluation; or a function of your own."
    )


class Prunable(SpecModel):
    exclude: Annotated[tuple[Text, ...], Strict(False), RuleText("a list of layer names or shell patterns")] = Field(
        default=DEFAULT.prunable.exclude,
        description="Layers that stay dense: names or shell patterns, such as head or blocks.0.*",
    )


class Sanity(SpecModel):
    shuffle: bool = Field(default=DEFAULT.sanity.shuffle, description="Permute the final mask within every layer.")
    reinitialize: bool = Field(
        default=DEFAULT.sanity.reinitialize, description="Begin the sparse training from another initialisation."
    )
    invert: bool = Field(default=DEFAULT.sanity.invert, description="Keep the weights with the lowest scores.")


class _CommonSpec(SpecModel):
    """What trials of all methods have."""

    dataset: Dataset = Field(description="The images.")
    model: ModelName = Field(description="The network, by name or as a function of your own.")
    method: Methods = Field(default=(DEFAULT.method,), description="How to prune; dense trains without pruning.")
    warmup_epochs: Integer = Field(default=DEFAULT.warmup_epochs, ge=0, description="Dense epochs before pruning.")
    prune_iterations: Integer = Field(
        default=DEFAULT.prune_iterations, ge=1, description="Rounds of score and mask that reach the sparsity."
    )
    sparsity: float = Field(default=DEFAULT.sparsity, ge=0, lt=1, description="Share of prunable weights that end up zero.")
    rewind: Annotated[str, RuleText("none, init or epoch K, K a whole number")] = Field(
        default=DEFAULT.rewind,
        pattern=f"^({REWIND.pattern})$",
        description="Weights that sparse training starts from: as pruned (none), initial (init), of warm-up epoch K.",
    )
    seed: Integer = Field(default=DEFAULT.seed, ge=0, description="Seed of initialisation, data order and augmentation.")
    precision: Precision = Field(
        default=DEFAULT.precision, description="Of the forward pass; auto is bf16 where the hardware multiplies it."
    )
    warmup: Warmup = Field(default=Warmup(), description="Dense training before pruning.")
    training: Training = Field(default=Training(), description="Sparse training after pruning.")


if TYPE_CHECKING:  # made at run time, with a field for every method that has options

    class _MethodSpec(_CommonSpec):
        pass

else:
    _MethodSpec = create_model("_MethodSpec", __base__=_CommonSpec, **option_fields())


class TrialSpec(_MethodSpec):
    """What decides the numbers of the trials."""

    sanity: Sanity = Field(default=Sanity(), description="What is left of a result without one part of the method.")
    width: Integer = Field(default=DEFAULT.width, ge=1, description="Factor of the channels of a CIFAR ResNet.")
    initialization: Initialization = Field(
        default=DEFAULT.initialization, description="Kaiming normal by the inputs or by the outputs of a layer."
    )
    prunable: Prunable = Field(default=Prunable(), description="Which conv and linear weights may be pruned.")


class Resources(SpecModel):
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto is a GPU where there is one.")
    cpus_per_trial: Cpus = Field(
        default=1.0, description="CPU cores that a trial reserves; auto measures how many pay, once per sweep."
    )
    gpus_per_trial: GpuShare | None = Field(
        default=None,
        description="Share of one GPU that a trial reserves; auto measures how many trials pay on one. Without it a whole GPU.",
    )
    max_concurrent: Integer | None = Field(
        default=None,
        ge=1,
        description="Most trials at once. A cluster that adds nodes on demand is asked for room for that many; "
        "without it, for no more than what fits on the nodes that are there.",
    )
    deterministic: bool | None = Field(
        default=None, description="Refuse kernels whose bits change from run to run; without it true on CPU, false on GPU."
    )
    compile: bool = Field(
        default=False, description="Compile training steps (torch.compile, on a GPU with CUDA graphs); told where it cannot."
    )


class Retries(SpecModel):
    lost: Integer = Field(default=10, ge=0, description="How often a trial is tried again after its process was lost.")


class Tracking(SpecModel):
    uri: Uri | None = Field(
        default=None, description="MLflow server; without it a database inside the storage, which must be a folder then."
    )
    experiment: Text = Field(default="drive-sweep", description="MLflow experiment that holds the runs.")
    models: Literal["all", "none"] = Field(
        default="all", description="Whether every trial's sparse model is logged; the trial folders keep them either way."
    )


def schema_keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every dotted key of a model that holds a value and no mapping, with its field."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from schema_keys(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def config_keys(cls: Any = TrialConfig, prefix: str = "") -> Iterator[str]:
    """Every dotted key of a trial's configuration, in the order in which names of trials show them."""
    hints = typing.get_type_hints(cls)
    for field in fields(cls):
        if hints[field.name] is Options:
            yield from _option_keys(name for name in METHODS if name != DEFAULT_METHOD)
        elif is_dataclass(hints[field.name]):
            yield from config_keys(hints[field.name], f"{prefix}{field.name}.")
        else:
            yield prefix + field.name
        if hints[field.name] is TrainingConfig:
            yield from _option_keys([DEFAULT_METHOD])


def _option_keys(methods: Iterable[str]) -> Iterator[str]:
    for method in methods:
        yield from (f"{method}.{name}" for name in METHODS[method].options.rules())


TRIAL_KEYS = tuple(config_keys())
FIXED_PER_SWEEP = (
    "dataset.name",
    "dataset.image_size",
    "method",
    "initial_weights",
)  # a sweep has one data set; methods are a list by themselves
SEARCHABLE: dict[str, FieldInfo] = {
    key: field for key, field in schema_keys(TrialSpec) if key in TRIAL_KEYS and key not in FIXED_PER_SWEEP
}


class _Axes:
    """The schema of `search`: every searchable key -> a list of values that pass the key's own checks, in the file's order."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        axes = {key: handler.generate_schema(_axis(field)) for key, field in SEARCHABLE.items()}
        mapping = core_schema.typed_dict_schema(
            {key: core_schema.typed_dict_field(axis, required=False) for key, axis in axes.items()},
            extra_behavior="forbid",
            config=core_schema.CoreConfig(strict=True, allow_inf_nan=False),
        )
        plain = core_schema.plain_serializer_function_ser_schema(lambda axes: {key: list(axes[key]) for key in axes})
        return core_schema.no_info_wrap_validator_function(_in_order_of_file, mapping, serialization=plain)


def _axis(field: FieldInfo) -> Any:
    annotated, row = cast(Any, Annotated), cast(Any, tuple)  # built at run time: nothing for a type checker
    value = annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    told = Field(min_length=1, description=field.description, json_schema_extra={"uniqueItems": True})
    return annotated[row[value, ...], Strict(False), told, AfterValidator(no_repeats)]


def _in_order_of_file(value: Any, check: Callable[[Any], Mapping[str, Any]]) -> dict[str, tuple[Any, ...]]:
    checked = check(value)
    return {key: checked[key] for key in value}


class SweepSpec(TrialSpec):
    """A whole sweep file, checked."""

    name: Annotated[str, RuleText("at most 100 letters, digits, '.', '_' and '-', beginning with a letter or digit")] = Field(
        pattern=f"^{NAME}$", description="Names the sweep, its folder and its MLflow run."
    )
    search: Annotated[dict[str, tuple[Any, ...]], _Axes()] = Field(
        default_factory=dict, description="The axes: any dotted key that decides a trial's numbers, with the values to try."
    )
    initial_weights: Text | None = Field(
        default=None, description="File of a dense checkpoint that all trials start from; without it they are initialised."
    )
    modules_path: Text = Field(
        default=".", description="Folder where the files of your own functions are looked up before the installed packages."
    )
    baseline: Literal["dense", "none"] = Field(default="dense", description="Whether one dense trial per seed is added.")
    resources: Resources = Field(default=Resources(), description="What one trial reserves.")
    retries: Retries = Field(default=Retries(), description="How often a trial is tried again, by kind of failure.")
    storage: StorageUri = Field(
        default=DEFAULT_STORAGE, description=f"What holds trials, warm-ups and sweeps: {STORAGE_FORMS}."
    )
    tracking: Tracking = Field(default=Tracking(), description="Where MLflow runs go.")
    checkpoint_seconds: float = Field(
        default=60.0, ge=0, description="A trial writes a checkpoint at the first boundary after so many seconds."
    )
    share_warmups: bool = Field(default=True, description="Train equal warm-ups once and start all their trials from it.")

    def source(self) -> DatasetSource:
        """Where the images come from."""
        dataset = self.dataset
        source = DatasetSource(name=dataset.name, image_size=dataset.image_size, root=dataset.root, download=dataset.download)
        return replace(source, modules_path=self.custom_files().modules_path) if is_custom(dataset.name) else source

    def custom_files(self) -> CustomFiles:
        """Where the user's own modules and weights lie, whatever the current folder; not yet looked at."""
        weights = self.initial_weights
        return CustomFiles(
            modules_path=_absolute(self.modules_path), initial_weights=None if weights is None else _absolute(weights)
        )


def _absolute(path: str) -> str:
    """The path from any folder; that of a shipped file stays as it is, since it differs from node to node."""
    return path if path.startswith(SHIPPED_PREFIX) else str(Path(path).expanduser().absolute())
