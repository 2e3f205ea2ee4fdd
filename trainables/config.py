"""What decides a trial's numbers, and the names that follow from it.

A trial is named by its content: equal configurations on equal data have equal keys, on any machine and under any path.
Trials that begin with the same dense training share a warm-up key. Users write sparsity (share of prunable weights that
are zero); everything below `final_count` works with counts. Read by every file of `trainables/` and by orchestrator/plan.py.
"""

from __future__ import annotations

import hashlib
import json
import re
import types
import typing
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from decimal import ROUND_FLOOR, Decimal
from typing import Any, Literal, TypeVar

# Raised by hand when a change to a component moves any result; tests/test_golden.py fails when numbers move without it.
NUMERICS: dict[str, int] = {"data": 1, "models": 1, "scores": 2, "training": 1}

Model = Literal["convnet", "resnet20", "resnet18"]
Method = Literal["drive", "dense"]
Normalize = Literal["mean", "sum", "rank", "none"]
DensitySchedule = Literal["exponential", "linear"]
Budget = Literal["sparse", "total"]
Precision = Literal["auto", "fp32", "bf16"]
Augment = Literal["auto", "none", "crop", "crop_flip"]

REWIND = re.compile(r"none|init|epoch \d+")


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetConfig:
    """Which images a trial sees; where they lie is not part of it.

    Attributes:
        image_size: side in pixels that the images of an `image_folder` are scaled to; None for data sets of a fixed size.
        limit: number of training images, class-balanced, validation included; limit // 5 test images go with it.
        validation: share of the training images that is held out for model selection, in [0, 1).
        split_seed: seed of the limit and of the validation split; apart from the trial's seed so that seeds share splits.
        augment: "auto" is "none" for digits and "crop_flip" (pad 4, horizontal flip) for every other data set.
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
        budget: "sparse" restarts the schedule after pruning; "total" continues it where the warm-up ended.
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


@dataclass(frozen=True, kw_only=True, slots=True)
class DriveConfig:
    """The DRIVE score and its rounds; every default here is an assumption (README, "Assumptions")."""

    magnitude: float = 1.0
    connection: float = 1.0
    convergence: float = 1.0
    normalize: Normalize = "mean"
    density_schedule: DensitySchedule = "exponential"
    score_batches: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class PrunableConfig:
    """Conv and linear weights are prunable, except layers whose name matches a pattern of `exclude` (shell wildcards)."""

    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialConfig:
    """Everything that decides one trial's numbers; under the same fingerprint equal configs give equal bits."""

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

    @property
    def sparse_epochs(self) -> int:
        """Epochs of training after pruning."""
        if self.training.budget == "total":
            return self.training.epochs - self.warmup_epochs
        return self.training.epochs

    @property
    def total_epochs(self) -> int:
        return self.warmup_epochs + self.sparse_epochs

    @property
    def rounds(self) -> int:
        """Pruning rounds that this trial really runs: none for the dense baseline."""
        return 0 if self.method == "dense" else self.prune_iterations

    @property
    def rewind_epoch(self) -> int | None:
        """Warm-up epoch whose weights the sparse training starts from (0 is initialisation); None keeps the weights."""
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


Config = TypeVar("Config")


def canonical(config: Any) -> dict[str, Any]:
    """The fields of a config that differ from their default, nested, values typed first (1 for a float field is 1.0).

    Leaving defaults out keeps old keys valid when an option is added; therefore a default never changes its meaning.
    """
    hints = _hints(type(config))
    kept: dict[str, Any] = {}
    for spec in fields(config):
        value = getattr(config, spec.name)
        if is_dataclass(value):
            if nested := canonical(value):
                kept[spec.name] = nested
            continue
        value = _typed(value, hints[spec.name])
        if value != spec.default:
            kept[spec.name] = list(value) if isinstance(value, tuple) else value
    return kept


def complete(config: TrialConfig) -> dict[str, Any]:
    """Every field, nested, defaults included: what `status --json` shows of a trial."""
    return asdict(config)


def from_canonical(cls: type[Config], values: dict[str, Any]) -> Config:
    """The config whose canonical form is `values`. Raises TypeError for an unknown field."""
    hints = _hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise TypeError(f"{cls.__name__} has no field {unknown[0]!r}; known are {', '.join(hints)}")
    typed: dict[str, Any] = {}
    for name, value in values.items():
        if is_dataclass(hints[name]) and isinstance(value, dict):
            typed[name] = from_canonical(typing.cast(type[Any], hints[name]), value)
        else:
            typed[name] = _typed(tuple(value) if isinstance(value, list) else value, hints[name])
    return cls(**typed)


_HINTS: dict[type[Any], dict[str, Any]] = {}  # resolving the annotations of a class takes longer than hashing a trial


def _hints(cls: type[Any]) -> dict[str, Any]:
    if cls not in _HINTS:
        _HINTS[cls] = typing.get_type_hints(cls)
    return _HINTS[cls]


def _typed(value: Any, hint: Any) -> Any:
    """The value in the type of its field, so that 1 and 1.0 written for a float are one value."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if float in options and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if int in options and float not in options and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def trial_key(config: TrialConfig, data_digest: str) -> str:
    """16 hex digits that name the trial: a hash of its configuration, its data and the numerics of the code."""
    return _digest({"config": canonical(config), "data": data_digest, "numerics": NUMERICS})


def warmup_key(config: TrialConfig, data_digest: str) -> str:
    """16 hex digits shared by all trials whose dense training begins in the same way, whatever its length."""
    training = config.training
    prefix = {
        "dataset": canonical(config.dataset),
        "model": config.model,
        "seed": int(config.seed),
        "precision": config.precision,
        "lr": float(config.warmup_lr),
        "batch_size": int(training.batch_size),
        "momentum": float(training.momentum),
        "nesterov": training.nesterov,
        "weight_decay": float(training.weight_decay),
    }
    numerics = {name: NUMERICS[name] for name in ("data", "models", "training")}
    return _digest({"prefix": prefix, "data": data_digest, "numerics": numerics})


def _digest(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def final_count(sparsity: float, prunable: int) -> int:
    """Weights kept at the end: (1 - sparsity) * prunable rounded half up, in decimal, as the sparsity was written.

    Binary floats would round 0.95 of 270,896 differently from what a reader computes by hand.
    """
    exact = (1 - Decimal(repr(float(sparsity)))) * prunable
    return int((exact + Decimal("0.5")).to_integral_value(rounding=ROUND_FLOOR))


def derived_seed(seed: int, purpose: str, index: int = 0) -> int:
    """A 63-bit seed for one purpose at one step, so that there is no generator state to carry between steps."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
