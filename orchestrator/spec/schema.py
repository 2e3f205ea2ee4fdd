"""The whole sweep file: every key with its type, range, default and meaning, and which keys can be searched.

The checks, the messages of errors (error_messages.py) and the JSON Schema all follow from it.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BaseModel, Field, GetCoreSchemaHandler, Strict
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from orchestrator.command_line import DEFAULT_STORAGE
from orchestrator.spec.field_types import Cpus, GpuShare, Integer, RuleText, SpecModel, StorageUri, Text, Uri, no_repeats
from orchestrator.spec.trial_schema import TrialSpec
from orchestrator.uris import STORAGE_FORMS
from trainables.config.methods import DEFAULT_METHOD, METHODS
from trainables.config.options import Options
from trainables.config.trial import TrainingConfig, TrialConfig
from trainables.custom.files import SHIPPED_PREFIX, CustomFiles
from trainables.custom.references import is_custom
from trainables.data.source import DatasetSource

NAME = "[A-Za-z0-9][A-Za-z0-9._-]{0,99}"


class Resources(SpecModel):
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Device of a trial; auto is a GPU if there is one."
    )
    cpus_per_trial: Cpus = Field(
        default=1.0, description="CPU cores that a trial reserves; auto measures the best number, once per sweep."
    )
    gpus_per_trial: GpuShare | None = Field(
        default=None,
        description="Share of a GPU that a trial reserves, by default a whole one; auto measures how many trials share one.",
    )
    max_concurrent: Integer | None = Field(
        default=None,
        ge=1,
        description="Maximum number of concurrent trials. A cluster that adds nodes on demand is asked to fit that many; "
        "by default no more than fit on its present nodes.",
    )
    deterministic: bool | None = Field(
        default=None, description="Use only deterministic kernels; true by default on CPU, false on GPU."
    )
    compile: bool = Field(
        default=False,
        description="Compile training steps with torch.compile (on a GPU with CUDA graphs); a warning says if it fails.",
    )


class Retries(SpecModel):
    lost: Integer = Field(default=10, ge=0, description="How often a trial is retried after its process was lost.")


class Tracking(SpecModel):
    uri: Uri | None = Field(
        default=None, description="MLflow server; by default a database inside the storage, which must then be a folder."
    )
    experiment: Text = Field(default="drive-sweep", description="MLflow experiment that holds the runs.")
    models: Literal["all", "none"] = Field(
        default="all", description="Whether each trial's sparse model is logged; the trial folders keep the models either way."
    )


def schema_keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every dotted key of a model with its field, except keys of mappings."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from schema_keys(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def config_keys(cls: Any = TrialConfig, prefix: str = "") -> Iterator[str]:
    """Every dotted key of a trial's configuration, in the order used in names of trials."""
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
# A sweep has one data set, and `method` takes a list itself.
FIXED_PER_SWEEP = ("dataset.name", "dataset.image_size", "method", "initial_weights")
SEARCHABLE: dict[str, FieldInfo] = {
    key: field for key, field in schema_keys(TrialSpec) if key in TRIAL_KEYS and key not in FIXED_PER_SWEEP
}


class _Axes:
    """The schema of `search`: searchable key -> list of values, each checked by the rule of the key; in the file's order."""

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
    annotated, row = cast(Any, Annotated), cast(Any, tuple)  # built at run time, unknown to a type checker
    value = annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    list_field = Field(min_length=1, description=field.description, json_schema_extra={"uniqueItems": True})
    return annotated[row[value, ...], Strict(False), list_field, AfterValidator(no_repeats)]


def _in_order_of_file(value: Any, validate: Callable[[Any], Mapping[str, Any]]) -> dict[str, tuple[Any, ...]]:
    validated = validate(value)
    return {key: validated[key] for key in value}


class SweepSpec(TrialSpec):
    """A whole, valid sweep file."""

    name: Annotated[str, RuleText("at most 100 letters, digits, '.', '_' and '-', beginning with a letter or digit")] = Field(
        pattern=f"^{NAME}$", description="Name of the sweep, its folder and its MLflow run."
    )
    search: Annotated[dict[str, tuple[Any, ...]], _Axes()] = Field(
        default_factory=dict,
        description="The axes: dotted keys that decide a trial's numbers, each with a list of values to try.",
    )
    initial_weights: Text | None = Field(
        default=None,
        description="File of a dense checkpoint that all trials start from; by default the weights are initialised.",
    )
    modules_path: Text = Field(
        default=".", description="Folder with the files of custom functions; searched before the installed packages."
    )
    baseline: Literal["dense", "none"] = Field(default="dense", description="Whether to add one dense trial per seed.")
    resources: Resources = Field(default=Resources(), description="What each trial reserves.")
    retries: Retries = Field(default=Retries(), description="How often a trial is retried, by kind of failure.")
    storage: StorageUri = Field(
        default=DEFAULT_STORAGE, description=f"Where trials, warm-ups and sweeps are stored: {STORAGE_FORMS}."
    )
    tracking: Tracking = Field(default=Tracking(), description="Where MLflow runs are logged.")
    checkpoint_seconds: float = Field(
        default=60.0,
        ge=0,
        description="Minimum number of seconds between checkpoints of a trial; they are written at the next boundary.",
    )
    share_warmups: bool = Field(default=True, description="Whether equal warm-ups are trained only once, for all their trials.")

    def source(self) -> DatasetSource:
        """The source of the images."""
        dataset = self.dataset
        source = DatasetSource(name=dataset.name, image_size=dataset.image_size, root=dataset.root, download=dataset.download)
        return replace(source, modules_path=self.custom_files().modules_path) if is_custom(dataset.name) else source

    def custom_files(self) -> CustomFiles:
        """Absolute paths of custom modules and weights; they are not checked here."""
        weights = self.initial_weights
        return CustomFiles(
            modules_path=_absolute(self.modules_path), initial_weights=None if weights is None else _absolute(weights)
        )


def _absolute(path: str) -> str:
    """The absolute path; that of a shipped file is unchanged, since it differs from node to node."""
    return path if path.startswith(SHIPPED_PREFIX) else str(Path(path).expanduser().absolute())
