"""A sound network, and the report on variants of it that tests make."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.support.trials import tiny_config
from trainables.preflight.network_case import NetworkReport, cases_of
from trainables.preflight.network_checks import examine_network
from trainables.runtime.device import Runtime

SHAPE, CLASSES = (1, 8, 8), 10
MODULE = "preflight_nets"
Make = Callable[..., Any]


def examined(make: Make, runtime: Runtime | None = None, **changes: Any) -> NetworkReport:
    sys.modules[MODULE].net = make  # type: ignore[attr-defined]
    methods = changes.pop("methods", ["drive"])
    configs = [tiny_config(model=f"module:{MODULE}.net", method=method, **changes) for method in methods]
    (case,) = cases_of(configs)
    return examine_network(case, SHAPE, CLASSES, runtime or Runtime(), [40, 7])


def errors(make: Make, **changes: Any) -> dict[str, str]:
    return {finding.check: str(finding) for finding in examined(make, **changes).errors}


class Small(nn.Module):
    """A sound network, of which the faulty ones change one thing."""

    def __init__(self, shape: Any = SHAPE, classes: int = CLASSES) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.hidden = nn.Linear(256, 16)
        self.head = nn.Linear(16, classes)

    def features(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(x))).flatten(1)

    def forward(self, x: Tensor) -> Any:
        return self.head(torch.relu(self.hidden(self.features(x))))


def sound(shape: Any, classes: int) -> nn.Module:
    return Small()
