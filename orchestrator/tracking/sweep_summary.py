"""What MLflow shows of a sweep as a whole, as plain values that can go to another process."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class RecommendedTrial:
    """The trial whose model is recommended for a group.

    Attributes:
        group: name of the group, see `group_names`.
        alias: of the model's version in the registry.
        network: of the trial.
        sentence: the recommendation.
    """

    group: str
    alias: str
    trial_key: str
    network: str
    sentence: str


@dataclass(frozen=True, kw_only=True)
class SweepSummary:
    """What the run of a sweep shows.

    Attributes:
        description: Markdown; empty leaves what the run has.
        metrics: full name -> value, NaN where it is not known; None leaves what the run has.
        step: number of finished trials.
        time_ms: when the last of them finished.
        recommended: of each group; the model registry has these.
        artifacts: path -> content.
    """

    description: str = ""
    metrics: Mapping[str, float] | None = None
    step: int = 0
    time_ms: int = 0
    recommended: tuple[RecommendedTrial, ...] = ()
    artifacts: Mapping[str, bytes] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"artifacts": {path: b64encode(content).decode() for path, content in self.artifacts.items()}}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SweepSummary:
        return cls(
            **{
                **values,
                "recommended": tuple(RecommendedTrial(**one) for one in values["recommended"]),
                "artifacts": {path: b64decode(content) for path, content in values["artifacts"].items()},
            }
        )
