"""The whole sweep file: every key with its type, range, default and meaning.

The checks, the messages of errors (error_messages.py) and the JSON Schema all follow from it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from orchestrator.command_line import DEFAULT_STORAGE
from orchestrator.spec.axes import DEFAULT_CONFIGURATION_AXES, Axes
from orchestrator.spec.field_types import Cpus, Gpus, Integer, SpecModel, StorageUri, SweepName, Text, Uri
from orchestrator.spec.ranges import Axis, Range
from orchestrator.spec.search_schema import (
    DEFAULT_OBJECTIVE,
    GRID,
    EarlyStopping,
    Objective,
    SearchBudget,
    Seeds,
    Strategy,
    StrategyOrName,
)
from orchestrator.spec.trial_schema import TrialSpec
from orchestrator.uris import STORAGE_FORMS
from trainables.custom.files import SHIPPED_PREFIX, CustomFiles
from trainables.custom.references import is_custom
from trainables.data.source import DatasetSource


class Resources(SpecModel):
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Device of a trial; auto is a GPU if there is one."
    )
    cpus_per_trial: Cpus | None = Field(
        default=None,
        description="CPU cores that a trial reserves, by default one for each of its workers, which divide them; auto measures "
        "the best number for a trial of one worker, once per sweep.",
    )
    gpus_per_trial: Gpus | None = Field(
        default=None,
        description="Share of a GPU that a trial reserves, by default a whole one; auto measures how many trials share one. A "
        "whole number above 1 is as many workers, processes that train the trial together with a GPU each.",
    )
    workers_per_trial: Integer | None = Field(
        default=None,
        ge=1,
        description="Processes that train one trial together on CPUs, by default one; on GPUs there is one for each GPU.",
    )
    sync_batch_norm: bool = Field(
        default=True,
        description="Whether several workers normalise by the statistics of the whole batch, or each by those of its share.",
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

    @property
    def workers(self) -> int:
        """How many processes train one trial together."""
        gpus = self.gpus_per_trial
        return int(gpus) if isinstance(gpus, float) and gpus > 1 else self.workers_per_trial or 1

    @property
    def cpus(self) -> float | Literal["auto"]:
        """The CPUs of a trial, of all its workers together."""
        return float(self.workers) if self.cpus_per_trial is None else self.cpus_per_trial

    @property
    def required_device(self) -> Literal["auto", "cpu", "cuda"]:
        """The device; a trial of several GPUs needs them, also where none is written."""
        return "cuda" if isinstance(self.gpus_per_trial, float) and self.gpus_per_trial > 1 else self.device


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


class SweepSpec(TrialSpec):
    """A whole, valid sweep file."""

    name: SweepName = Field(description="Name of the sweep, its folder and its MLflow run.")
    search: Annotated[dict[str, Axis], Axes()] = Field(
        default_factory=dict,
        description="The axes: dotted keys that decide a trial's numbers, each with a list of values to try; under a strategy "
        "other than grid also with a range {min, max, step | log}.",
    )
    strategy: StrategyOrName = Field(default=Strategy.defaults(), description="Which combinations of the axes are tried.")
    objective: Objective = Field(
        default=DEFAULT_OBJECTIVE,
        description="Metric that the search improves, or several, each with max or min; test metrics decide nothing.",
    )
    early_stopping: EarlyStopping | None = Field(default=None, description="Whether trials that fall behind are stopped.")
    seeds: Seeds | None = Field(default=None, description="How many seeds repeat a configuration; in place of search.seed.")
    budget: SearchBudget | None = Field(
        default=None, description="Limits of the search: nothing starts that would exceed one of them."
    )
    initial_weights: Text | None = Field(
        default=None,
        description="File of a dense checkpoint that all trials start from; by default the weights are initialised.",
    )
    timings: Text | None = Field(
        default=None,
        description="File of the timing table that target.latency is measured by; the command timings measures one.",
    )
    modules_path: Text = Field(
        default=".", description="Folder with the files of custom functions; searched before the installed packages."
    )
    baseline: Literal["dense", "none"] = Field(default="dense", description="Whether to add one dense trial per seed.")
    resources: Resources = Field(default=Resources.defaults(), description="What each trial reserves.")
    retries: Retries = Field(default=Retries.defaults(), description="How often a trial is retried, by kind of failure.")
    storage: StorageUri = Field(
        default=DEFAULT_STORAGE, description=f"Where trials, warm-ups and sweeps are stored: {STORAGE_FORMS}."
    )
    on_error: Literal["pause", "continue"] = Field(
        default="pause",
        description="Whether the same error in two trials that have no value of an axis in common pauses the sweep.",
    )
    tracking: Tracking = Field(default=Tracking.defaults(), description="Where MLflow runs are logged.")
    checkpoint_seconds: float = Field(
        default=60.0,
        ge=0,
        description="Minimum number of seconds between checkpoints of a trial; they are written at the next boundary.",
    )
    stage_timeout: float | None = Field(
        default=None,
        ge=10,
        description="Seconds without any report after which a stage counts as hung and is ended; by default 5 times the median "
        "duration of its kind, or of what the checks predict for the first ones, at least 600.",
    )
    share_warmups: bool = Field(default=True, description="Whether equal warm-ups are trained only once, for all their trials.")

    @property
    def is_search(self) -> bool:
        """Whether the trials depend on results, so that they are not known beforehand."""
        staged = self.early_stopping or self.seeds or self.budget
        has_range = any(isinstance(axis, Range) for axis in self.search.values())
        return self.strategy.name != GRID or staged is not None or has_range

    @property
    def configuration_axes(self) -> tuple[str, ...]:
        """Keys of `search` that make up a configuration, in the file's order."""
        if self.strategy.axes is not None:
            return tuple(key for key in self.search if key in self.strategy.axes)
        return tuple(key for key, axis in self.search.items() if key in DEFAULT_CONFIGURATION_AXES or isinstance(axis, Range))

    @property
    def group_axes(self) -> tuple[str, ...]:
        """The other keys of `search` without the seed, in the file's order: only trials with equal values are compared."""
        return tuple(key for key in self.search if key not in (*self.configuration_axes, "seed"))

    def source(self) -> DatasetSource:
        """The source of the images."""
        dataset = self.dataset
        source = DatasetSource(name=dataset.name, image_size=dataset.image_size, root=dataset.root, download=dataset.download)
        return replace(source, modules_path=self.custom_files().modules_path) if is_custom(dataset.name) else source

    def custom_files(self) -> CustomFiles:
        """Absolute paths of custom modules and weights; they are not checked here."""
        return CustomFiles(
            modules_path=str(_absolute(self.modules_path)),
            initial_weights=_absolute(self.initial_weights),
            timings=_absolute(self.timings),
        )


def _absolute(path: str | None) -> str | None:
    """The absolute path; that of a shipped file is unchanged, since it differs from node to node."""
    if path is None:
        return None
    return path if path.startswith(SHIPPED_PREFIX) else str(Path(path).expanduser().absolute())
