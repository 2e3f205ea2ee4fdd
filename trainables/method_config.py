"""Options of every pruning method, each in a block of its own; a trial's key holds only those of its method.

A default never changes its meaning: it is left out of keys (keys.py). What a method does with its options: methods.py.
Read by: config.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Method = Literal["drive", "snip", "grasp", "synflow", "magnitude", "random", "dense"]
Normalize = Literal["mean", "sum", "rank", "none"]
DensitySchedule = Literal["exponential", "linear"]
BatchNormMode = Literal["batch", "running"]
RandomLayers = Literal["uniform", "erk"]

SCORED_IN_ROUNDS = ("drive", "snip", "grasp", "synflow")  # prune_iterations counts
SCORED_ONCE = ("magnitude", "random")  # without training between them, more rounds give the same mask
METHOD_BLOCKS = ("drive", "snip", "grasp", "synflow", "random")  # methods with options


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
class SnipConfig:
    """Connection sensitivity |w dL/dw| (arXiv:1810.02340); with `prune_iterations` above 1 it is scored again in every round.

    Attributes:
        images_per_class: class-balanced images of one score, instead of `score_batches` training batches.
        batch_norm: statistics while scoring, of the batch or running; before any training "running" makes BN the identity.
    """

    score_batches: int = 1
    images_per_class: int | None = None
    batch_norm: BatchNormMode = "batch"
    density_schedule: DensitySchedule = "exponential"


@dataclass(frozen=True, kw_only=True, slots=True)
class GraspConfig:
    """Gradient signal preservation (arXiv:2002.07376): scores of a softmax at `temperature`, over class-balanced images."""

    temperature: float = 200.0
    images_per_class: int | None = 10
    score_batches: int = 1
    batch_norm: BatchNormMode = "batch"
    density_schedule: DensitySchedule = "exponential"


@dataclass(frozen=True, kw_only=True, slots=True)
class SynflowConfig:
    """Synaptic flow (arXiv:2006.05467); the paper prunes in 100 rounds, here `prune_iterations`."""

    density_schedule: DensitySchedule = "exponential"


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomConfig:
    """A random mask with one density for all ("uniform"), or by layer as Erdos-Renyi-Kernel says ("erk", arXiv:1911.11134)."""

    layers: RandomLayers = "uniform"
