"""The examination of one network before a sweep: the network, the images, and the findings so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from trainables.config.trial import TrialConfig
from trainables.custom.references import is_custom
from trainables.findings import Finding, Severity
from trainables.models.registry import build_model, initialize, initialized_network
from trainables.models.spiking import with_spikes
from trainables.preflight.network_case import NetworkCase
from trainables.runtime.device import Runtime
from trainables.runtime.heartbeat import beat
from trainables.wording import first_line, one_line

OUT_OF_MEMORY = (torch.OutOfMemoryError, MemoryError)


@dataclass
class Examination:
    """The examined network with the findings about it.

    Attributes:
        runtime: of the sweep, adjusted where the network cannot use it.
        evaluation_sizes: numbers of images in the batches of an evaluation.
        workers: that train a trial together; the network is examined by one.
        adjusted: fields of the runtime that had to change.
        step_seconds: of one training pass of a batch.
    """

    case: NetworkCase
    image_shape: tuple[int, int, int]
    num_classes: int
    runtime: Runtime
    evaluation_sizes: list[int]
    workers: int = 1
    findings: list[Finding] = field(default_factory=list)
    adjusted: dict[str, Any] = field(default_factory=dict)
    step_seconds: float | None = None

    @property
    def failed(self) -> bool:
        return any(finding.severity == "error" for finding in self.findings)

    def configs_by_exclude(self) -> list[TrialConfig]:
        """One trial for each value of prunable.exclude."""
        return list({member.prunable.exclude: member for member in self.case.configs}.values())

    def add(self, check: str, message: str, hint: str = "", severity: Severity = "error") -> None:
        self.findings.append(Finding(check=check, severity=severity, message=message, hint=hint))

    def out_of_memory(self, error: BaseException) -> None:
        message = (
            f"not all of the network could be checked: a batch of {self.case.config.training.batch_size} images needs more "
            f"memory than {self.runtime.device} has left ({error_line(error)})"
        )
        self.add("memory", message, "lower training.batch_size if trials run out of memory too", "warning")

    def build(self) -> nn.Module:
        """The network at its initialisation, on the CPU."""
        beat()
        config = self.case.config
        if is_custom(config.model):
            return initialized_network(config, self.image_shape, self.num_classes)
        model = build_model(config.model, self.image_shape, self.num_classes, config.width, device="cpu")
        model = with_spikes(model, config.training.spiking)
        initialize(model, config.seed, config.initialization)
        return model

    def images(self, count: int) -> Tensor:
        """Noise in place of normalised images; a larger count starts with the images of a smaller one."""
        beat()
        generator = torch.Generator().manual_seed(0)
        return torch.randn((count, *self.image_shape), generator=generator).to(self.runtime.device)

    def labels(self, count: int) -> Tensor:
        return (torch.arange(count) % self.num_classes).to(self.runtime.device)


def error_line(error: BaseException | None) -> str:
    """Type and first line of an error."""
    line = first_line(error) if str(error or "").strip() else ""
    return f"{type(error).__name__}: {one_line(line)}" if line else type(error).__name__
