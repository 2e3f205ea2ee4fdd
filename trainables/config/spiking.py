"""The configuration of a spiking network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

SpikingRule = Literal["none", "sltt", "sltt-k", "bptt"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SpikingConfig:
    """Neurons that spike over several time steps in the place of ReLUs, and how their gradient is taken (arXiv:2302.14311).

    Attributes:
        rule: none trains the network as it is; sltt drops the paths of the gradient through time, step by step; sltt-k does so
            in some steps of each batch alone; bptt keeps them.
        steps: time steps for each image.
        sampled_steps: of sltt-k, the steps of each batch that have a gradient.
        tau: time constant of the neurons, in steps; what is left of a voltage after a step is the share 1 - 1 / tau.
        mse_share: share of the loss that is the mean squared distance of all class scores from 1.
    """

    rule: SpikingRule = "none"
    steps: int = 6
    sampled_steps: int = 1
    tau: float = 1.1
    mse_share: float = 0.05

    @property
    def is_on(self) -> bool:
        return self.rule != "none"

    @property
    def samples_steps(self) -> bool:
        return self.rule == "sltt-k"

    @property
    def in_use(self) -> SpikingConfig:
        """The same with all that the rule does not use at its default."""
        default = SpikingConfig()
        if not self.is_on:
            return default
        return self if self.samples_steps else replace(self, sampled_steps=default.sampled_steps)
