"""One network as a sweep computes it, and the report of the checks before the sweep.

Trials that share a warm-up belong to one case, so they use the same runtime. Imports no PyTorch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from trainables.config.keys import canonical
from trainables.config.trial import TrialConfig
from trainables.findings import Finding
from trainables.runtime.device import Runtime

CHECKS_VERSION = 2  # increased when a check changes, so that reports of older code are made again

Adjustments = Mapping[str, Mapping[str, Any]]  # id of a case -> fields of Runtime that differ for it


@dataclass(frozen=True, kw_only=True)
class NetworkCase:
    """A network with everything that decides its computation, and one trial of every method that the sweep uses on it.

    Attributes:
        id: 12 hex digits, equal for trials with the same computation.
        configs: trials that differ in their method, in the layers that it may prune, or in how it scores.
    """

    id: str
    configs: tuple[TrialConfig, ...]

    @property
    def config(self) -> TrialConfig:
        return self.configs[0]

    @property
    def methods_id(self) -> str:
        """12 hex digits over what the methods require of the network; independent of schedules and seeds."""
        return _digest(sorted(json.dumps(_method(config), sort_keys=True) for config in self.configs))


@dataclass(frozen=True, kw_only=True)
class NetworkReport:
    """The findings about a case.

    Attributes:
        adjusted: fields of Runtime that must differ for this network.
        seconds: duration of the checks.
        step_seconds: of one training pass of a batch; None if it was not measured.
    """

    case: str
    model: str
    findings: tuple[Finding, ...]
    adjusted: dict[str, Any]
    seconds: float
    step_seconds: float | None = None

    @property
    def errors(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity == "error"]

    @property
    def is_complete(self) -> bool:
        """Whether every check ran; one that ran out of memory may succeed later."""
        return all(finding.check != "memory" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        return {
            "case": self.case,
            "model": self.model,
            "findings": [finding.to_json() for finding in self.findings],
            "adjusted": self.adjusted,
            "seconds": round(self.seconds, 3),
            "step_seconds": self.step_seconds,
        }

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> NetworkReport:
        findings = tuple(Finding.from_json(one) for one in record["findings"])
        return NetworkReport(**{**record, "findings": findings, "adjusted": dict(record["adjusted"])})


def cases_of(configs: Iterable[TrialConfig]) -> list[NetworkCase]:
    """The cases of these trials, in their order."""
    members: dict[str, dict[str, TrialConfig]] = {}
    for config in configs:
        members.setdefault(case_id(config), {}).setdefault(json.dumps(_method(config), sort_keys=True), config)
    return [NetworkCase(id=id_, configs=tuple(by_method.values())) for id_, by_method in members.items()]


def case_id(config: TrialConfig) -> str:
    """12 hex digits over everything that decides a trial's computation in its runtime."""
    content = {
        "dataset": canonical(config.dataset),
        "model": config.model,
        "width": config.width,
        "initialization": config.initialization,
        "initial_weights": config.initial_weights,
        "batch_size": config.training.batch_size,
        "loss": config.training.loss,
        "precision": config.precision,
    }
    spiking = canonical(config.training.spiking)  # left out if the network does not spike, as in older sweeps
    return _digest(content | ({"spiking": spiking} if spiking else {}))


def adjusted_runtime(runtime: Runtime, config: TrialConfig, adjustments: Adjustments) -> Runtime:
    """The runtime of a trial: the sweep's, in the trial's precision, with the adjustments of its network."""
    trial_runtime = runtime.for_trial(config.precision)
    return replace(trial_runtime, **adjustments.get(case_id(config), {}))


def _method(config: TrialConfig) -> dict[str, Any]:
    rules = config.options.rules()
    options = canonical(config).get(config.option_block, {})
    deciding = {name: value for name, value in options.items() if name not in rules or rules[name].decides_preflight}
    channels = {"granularity": config.granularity} if config.prunes_channels else {}
    timings = {"layer_sparsity": config.layer_sparsity, "latency": config.target.latency} if config.uses_timings else {}
    return {"method": config.method, "exclude": list(config.prunable.exclude), **channels, **timings, **deciding}


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
