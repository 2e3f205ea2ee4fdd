"""The method consensus: gates that depend on the image learn to agree, then the channels that fewest images need are removed.

A reconstruction: of arXiv:2302.10798 (Zhi et al.) only the abstract and a third-party summary were read, and no code is public.
The gates (channels/gates.py) and the loss terms (consensus.py) are not the paper's equations, and results must not be published
under its name.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from trainables.channels.gates import ChannelGates
from trainables.channels.units import ChannelUnits
from trainables.config.methods import ConsensusConfig
from trainables.config.trial import TrialConfig
from trainables.errors import ConfigError
from trainables.pruning.consensus import consensus_scores, gate_activity, gate_polarization
from trainables.pruning.score_gradients import scoring_mode
from trainables.pruning.sparse_trainers import FixedMasks, SparseTraining
from trainables.runtime.seeding import derived_seed
from trainables.wording import first_line, one_line


class ConsensusGates(FixedMasks):
    """Trains with gates until the share `end` of all steps, removes channels, and trains on without gates.

    The loss has `penalty` * R_polar + `activity` * R_act besides. R_act draws the share of open gates to the trial's target
    share, 1 - sparsity, whatever that is a share of. Gates have an optimizer of their own with the trial's settings and rate,
    and clip the norm of their gradients apart. At the removal a pass over the training images, without augmentation, gives the
    mean of each gate; channels with the lowest go until the target is met, whether their gates agree or not.

    A norm layer also sees the channels of images whose gate is closed; its statistics are those of the channel as it is made.
    """

    def __init__(self, training: SparseTraining) -> None:
        super().__init__(training.model, training.masks)
        assert isinstance(training.config.options, ConsensusConfig)
        self.training, self.options = training, training.config.options
        self.removal_step = training.step_at(self.options.end)
        self.changes_forward = training.first_step < self.removal_step
        if not self.changes_forward:
            return
        self.gates = _gates(training.model, training.config, training.selection.units)
        self.optimizer = torch.optim.SGD(self.gates.parameters(), **training.optimizer.defaults)
        with torch.no_grad():
            for name, parameter in self.gates.named_parameters():
                if f"gate.{name}" in training.state:
                    parameter.copy_(training.state[f"gate.{name}"])
                if (momentum := training.state.get(f"momentum.{name}")) is not None:
                    self.optimizer.state[parameter]["momentum_buffer"] = momentum.clone().to(parameter)
        self.gates.install(training.model)

    @classmethod
    def start(cls, training: SparseTraining) -> Self:
        return cls(training)

    @classmethod
    def check(
        cls, model: nn.Module, config: TrialConfig, units: ChannelUnits | None, image_shape: tuple[int, int, int]
    ) -> None:
        gates = _gates(model, config, units)
        gates.install(model)
        try:
            with scoring_mode(model, "running"), torch.no_grad():
                model(torch.zeros(2, *image_shape, device=next(model.parameters()).device))
            problem = f"{missing[0]} is never called" if (missing := gates.missing()) else ""
        except Exception as error:  # of many types, from the network's code too
            problem = one_line(first_line(error))
        finally:
            gates.remove()
        if problem:
            raise ConfigError(
                f"method: consensus must have a network whose layers can read gated channels, got: {problem}",
                "take another method of channels",
            )

    def penalty(self) -> Tensor | None:
        if not self.changes_forward:
            return None
        mean_U = self.gates.means()
        target = 1 - self.training.config.sparsity
        polarization, activity = gate_polarization(mean_U), gate_activity(mean_U, target)
        return self.options.penalty * polarization + self.options.activity * activity

    def after_backward(self, step: int = 0) -> None:
        clip_norm = self.training.config.training.clip_norm
        if step and self.changes_forward and clip_norm is not None:
            nn.utils.clip_grad_norm_(self.gates.parameters(), clip_norm)

    def after_step(self, step: int) -> None:
        if self.changes_forward:
            for group, of_network in zip(self.optimizer.param_groups, self.training.optimizer.param_groups, strict=True):
                group["lr"] = of_network["lr"]
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            if step >= self.removal_step:
                self._remove()
        super().after_step(step)

    def finish(self) -> dict[str, Tensor]:
        if not self.changes_forward:
            return {}
        self.gates.remove()
        state: dict[str, Tensor] = {}
        for name, parameter in self.gates.named_parameters():
            state[f"gate.{name}"] = parameter.detach()
            if (momentum := self.optimizer.state[parameter].get("momentum_buffer")) is not None:
                state[f"momentum.{name}"] = momentum
        return state

    def _remove(self) -> None:
        training = self.training
        open_U, mean_z_U, images = self.gates.over(training.pass_over_images)
        training.model.train()
        self.gates.remove()
        self.changes_forward = False
        mean_U = open_U / images
        self.metrics |= {
            "prune/open_gates": float(mean_U.mean()),
            "prune/unanimous_gates": float(((open_U == 0) | (open_U == images)).double().mean()),
            "prune/gates_mostly_closed": float((mean_U < 0.5).double().mean()),
        }
        weights = {name: mask for name, mask in self.masks.items() if mask.dim() > 1}
        masks = training.selection.select(consensus_scores(open_U, mean_z_U), weights, training.config, 1)
        self.metrics |= training.selection.metrics(masks, training.config)
        self._set(training.selection.with_other_tensors(masks, training.model))


def _gates(model: nn.Module, config: TrialConfig, units: ChannelUnits | None) -> ChannelGates:
    assert units is not None, "consensus needs the units of channels"
    assert isinstance(config.options, ConsensusConfig)
    generator = torch.Generator().manual_seed(derived_seed(config.seed, "gates"))
    return ChannelGates(model, units, config.options.width, generator)
