"""Keys of a sweep file that say which trials of the search space are run, and when the search ends."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, Strict, WithJsonSchema

from orchestrator.spec.axes import DEFAULT_CONFIGURATION_AXES, Point
from orchestrator.spec.field_types import Integer, Positive, RuleText, SpecModel, SweepName, Text, no_repeats

GRID = "grid"
STRATEGIES = {
    GRID: "every combination of the values",
    "random": "configurations drawn at random",
    "qmc": "configurations spread evenly, by a quasi-random sequence",
    "tpe": "tree-structured Parzen estimator: more of what resembles the best configurations so far",
    "gp": "Gaussian process: where the expected improvement is largest; for few, costly configurations",
    "nsga2": "genetic algorithm for several objectives",
}
Direction = Literal["max", "min"]
# Metric of a finished trial that can be an objective -> its better direction.
METRICS: dict[str, Direction] = {
    "val/accuracy": "max",
    "val/top5_accuracy": "max",
    "val/loss": "min",
    "train/accuracy": "max",
    "train/loss": "min",
    "prune/val_accuracy_after": "max",
    "prune/val_top5_accuracy_after": "max",
    "prune/sparsity": "max",
    "prune/kept_weights": "min",
    "prune/min_layer_density": "max",
    "prune/emptied_layers": "min",
    "cost/warmup_seconds": "min",
    "cost/prune_seconds": "min",
    "cost/search_seconds": "min",
    "cost/total_seconds": "min",
    "cost/prune_dense_epochs": "min",
    "cost/search_dense_epochs": "min",
    "cost/total_dense_epochs": "min",
    "model/sparsity": "max",
    "model/parameter_sparsity": "max",
    "model/effective_sparsity": "max",
    "model/compression_ratio": "max",
    "model/theoretical_speedup": "max",
    "model/flops": "min",
    "model/bytes": "min",
}
DEFAULT_OBJECTIVE: dict[str, Direction] = {"val/accuracy": "max"}
MOST_SEEDS = 10_000
ACCURACY = "accuracy"  # in the names of metrics that people read in percent
EACH_EPOCH = ("val/", "train/")  # prefixes of the metrics that every epoch records

_StrategyName: Any = cast(Any, Literal)[tuple(STRATEGIES)]


def _as_mapping(value: Any) -> Any:
    """`strategy: tpe` is short for `strategy: {name: tpe}`."""
    return {"name": value} if isinstance(value, str) else value


def _with_direction(value: Any) -> Any:
    """`objective: val/loss` is short for `objective: {val/loss: min}`."""
    return {value: METRICS.get(value, "max")} if isinstance(value, str) else value


def _name_or_mapping(schema: dict[str, Any]) -> None:
    """Adds a name alone as an alternative to the mapping to the schema of `strategy`."""
    schema["anyOf"] = [{"type": schema.pop("type")}, {"enum": list(STRATEGIES)}]


class Strategy(SpecModel):
    model_config = ConfigDict(json_schema_extra=_name_or_mapping)

    name: _StrategyName = Field(
        default=GRID, description="How configurations are chosen; every strategy except grid is a sampler of Optuna."
    )
    configurations: Positive | None = Field(
        default=None, description="Number of configurations in each group; required for every strategy except grid."
    )
    seed: Integer = Field(default=0, ge=0, description="Seed of the strategy, not of the trials.")
    axes: (
        Annotated[
            tuple[Text, ...],
            Strict(False),
            Field(min_length=1),
            AfterValidator(no_repeats),
            RuleText("a list of keys of search without repeats"),
        ]
        | None
    ) = Field(
        default=None,
        description=f"Keys of search that make up a configuration; by default {', '.join(DEFAULT_CONFIGURATION_AXES)} and "
        "every range. The other keys, method and sparsity among them, make up the groups.",
    )
    start_with: Annotated[
        tuple[Annotated[dict[str, Any], Point(), RuleText("a mapping of keys of search to values")], ...],
        Strict(False),
        RuleText("a list of mappings of keys of search to values"),
    ] = Field(default=(), description="Configurations to begin with, each with values for some or all of its axes.")
    learn_from: Annotated[
        tuple[SweepName, ...], Strict(False), AfterValidator(no_repeats), RuleText("a list of names of sweeps without repeats")
    ] = Field(default=(), description="Sweeps of this storage whose finished trials inform the strategy.")


class EarlyStopping(SpecModel):
    name: Literal["asha", "median"] = Field(
        description="Rule: successive halving (asha), or worse than the median of the others."
    )
    reduction: Integer = Field(
        default=3, ge=2, description="asha: one of this many trials goes on from one rung to the next, this many times as long."
    )
    grace_epochs: Integer = Field(default=1, ge=1, description="Sparse epochs before the first decision.")


class Seeds(SpecModel):
    first: Integer = Field(
        default=2, ge=1, le=MOST_SEEDS, description="Number of seeds of every configuration: seed, seed + 1 and so on."
    )
    most: Integer = Field(ge=1, le=MOST_SEEDS, description="Number of seeds up to which leading configurations are repeated.")
    confidence: float = Field(
        default=0.95, gt=0.5, lt=1, description="Confidence at which one configuration is better than another."
    )
    indifference: float = Field(
        default=0.2,
        ge=0,
        description="Difference that does not matter: in percentage points of an accuracy, else in the unit of the objective.",
    )


class SearchBudget(SpecModel):
    hours: float | None = Field(default=None, gt=0, description="Hours from the start of the sweep.")
    gpu_hours: float | None = Field(default=None, gt=0, description="Hours of all GPUs together.")
    epochs: Positive | None = Field(
        default=None, description="Epochs of all trials but the dense baselines, shared warm-ups once."
    )
    configurations: Positive | None = Field(default=None, description="Configurations of all groups together.")


StrategyOrName = Annotated[
    Strategy, BeforeValidator(_as_mapping), RuleText(f"one of {', '.join(STRATEGIES)}, or a mapping of keys")
]
Objective = Annotated[
    dict[str, Direction],
    BeforeValidator(_with_direction),
    Field(min_length=1),
    RuleText("a metric, or a mapping of metrics to max or min"),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": list(METRICS)},
                {
                    "type": "object",
                    "properties": {metric: {"enum": ["max", "min"]} for metric in METRICS},
                    "additionalProperties": False,
                    "minProperties": 1,
                },
            ]
        }
    ),
]
