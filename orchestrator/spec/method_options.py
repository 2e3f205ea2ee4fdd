"""What a sweep file may say of a pruning method: one mapping for each, with the type, range and meaning of its options.

Defaults are those of trainables/config/methods.py.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field

from orchestrator.spec.field_types import DEFAULT, Integer, Positive, RuleText, SpecModel
from trainables.config.methods import BatchNormMode, DensitySchedule, Normalize


class Drive(SpecModel):
    magnitude: float = Field(default=DEFAULT.drive.magnitude, ge=0, description="Factor of |w| in the score.")
    connection: float = Field(default=DEFAULT.drive.connection, ge=0, description="Factor of |w dL/dw| in the score.")
    convergence: float = Field(default=DEFAULT.drive.convergence, ge=0, description="Factor of |dL/dw| in the score.")
    normalize: Normalize = Field(default=DEFAULT.drive.normalize, description="What brings the three terms to one scale.")
    density_schedule: DensitySchedule = Field(
        default=DEFAULT.drive.density_schedule, description="How the share of kept weights falls over the iterations."
    )
    score_batches: Integer = Field(
        default=DEFAULT.drive.score_batches, ge=1, description="Batches that the gradient of one score is taken over."
    )


def _rounds(default: Any) -> Any:
    return Field(default=default, description="How the share of kept weights falls over the iterations.")


def _score_batches(default: int) -> Any:
    return Field(default=default, ge=1, description="Training batches of one score, where it has no images_per_class.")


def _images_per_class(default: int | None) -> Any:
    return Field(default=default, description="Images of every class that score; null takes training batches.")


def _batch_norm(default: Any) -> Any:
    return Field(default=default, description="Statistics of BN while scoring: of the batch, or running ones.")


class Snip(SpecModel):
    score_batches: Integer = _score_batches(DEFAULT.snip.score_batches)
    images_per_class: Positive | None = _images_per_class(DEFAULT.snip.images_per_class)
    batch_norm: BatchNormMode = _batch_norm(DEFAULT.snip.batch_norm)
    density_schedule: DensitySchedule = _rounds(DEFAULT.snip.density_schedule)


class Grasp(SpecModel):
    temperature: float = Field(default=DEFAULT.grasp.temperature, gt=0, description="Divides the class scores in the loss.")
    images_per_class: Positive | None = _images_per_class(DEFAULT.grasp.images_per_class)
    score_batches: Integer = _score_batches(DEFAULT.grasp.score_batches)
    batch_norm: BatchNormMode = _batch_norm(DEFAULT.grasp.batch_norm)
    density_schedule: DensitySchedule = _rounds(DEFAULT.grasp.density_schedule)


class Synflow(SpecModel):
    density_schedule: DensitySchedule = _rounds(DEFAULT.synflow.density_schedule)


class RandomPart(SpecModel):
    layers: Annotated[str, RuleText("uniform, erk, or the key of a trial, 16 hex digits")] = Field(
        default=DEFAULT.random.layers,
        pattern="^(uniform|erk|[0-9a-f]{16})$",
        description="One density for all layers, Erdos-Renyi-Kernel densities, or the counts of a finished trial, by its key.",
    )


class Imp(SpecModel):
    fraction: float = Field(
        default=DEFAULT.imp.fraction, gt=0, lt=1, description="Share of the remaining weights that a level prunes."
    )
    exact: bool = Field(
        default=DEFAULT.imp.exact,
        description="Prune a little less at every level, so that the last ends on the sparsity; false ends at or beyond it.",
    )


def _begin(default: float) -> Any:
    return Field(default=default, ge=0, lt=1, description="Share of the training after which gradual pruning begins.")


def _end(default: float) -> Any:
    return Field(default=default, gt=0, le=1, description="Share of the training after which the sparsity is reached.")


def _initial_sparsity(default: float) -> Any:
    return Field(default=default, ge=0, lt=1, description="Sparsity at the beginning of the training.")


class Gmp(SpecModel):
    begin: float = _begin(DEFAULT.gmp.begin)
    end: float = _end(DEFAULT.gmp.end)
    initial_sparsity: float = _initial_sparsity(DEFAULT.gmp.initial_sparsity)


class Granet(SpecModel):
    begin: float = _begin(DEFAULT.granet.begin)
    end: float = _end(DEFAULT.granet.end)
    initial_sparsity: float = _initial_sparsity(DEFAULT.granet.initial_sparsity)
    regrow: float = Field(
        default=DEFAULT.granet.regrow,
        ge=0,
        lt=1,
        description="Share of a layer's weights that an update exchanges at first; it falls along a cosine to a hundredth.",
    )


def _n_of_m(value: str) -> str:
    n, _, m = value.partition(":")
    if not 0 < int(n) < int(m):
        raise ValueError("not N of M")
    return value


class Srste(SpecModel):
    pattern: Annotated[str, AfterValidator(_n_of_m), RuleText("N:M with 0 < N < M, such as 2:4")] = Field(
        default=DEFAULT.srste.pattern,
        pattern="^[0-9]{1,3}:[0-9]{1,3}$",
        description="Of every M weights along the input channels the N largest are kept; the sparsity follows from it.",
    )
    decay: float = Field(default=DEFAULT.srste.decay, ge=0, description="Extra decay of the weights that are not kept.")


class Sanity(SpecModel):
    shuffle: bool = Field(default=DEFAULT.sanity.shuffle, description="Permute the final mask within every layer.")
    reinitialize: bool = Field(
        default=DEFAULT.sanity.reinitialize, description="Begin the sparse training from another initialisation."
    )
    invert: bool = Field(default=DEFAULT.sanity.invert, description="Keep the weights with the lowest scores.")
