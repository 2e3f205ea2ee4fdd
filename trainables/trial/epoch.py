"""One epoch of a trial's phase: trained, validated, and timed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from trainables.config.trial import TrialConfig
from trainables.data.splits import Data
from trainables.pruning.sparse_trainers import MaskUpdater
from trainables.runtime.device import Runtime
from trainables.runtime.group import group_of
from trainables.runtime.hashing import tensors_sha256
from trainables.training.loop import evaluate, train_epoch
from trainables.trial.checkpoint import TrialState


@contextmanager
def timed(state: TrialState, phase: str) -> Iterator[None]:
    """Adds the time inside to the seconds of a phase."""
    start = time.perf_counter()
    yield
    state.seconds[phase] += time.perf_counter() - start


def advance_epoch(
    state: TrialState,
    updater: MaskUpdater,
    data: Data,
    config: TrialConfig,
    runtime: Runtime,
    *,
    lr: float,
    epoch: int,
    first_step: int = 0,
) -> dict[str, float]:
    """Trains one epoch in place and advances the position; the metrics of `train_epoch`.

    Raises:
        NonFiniteError: as `train_epoch`.
        RuntimeError: the workers of the trial have different weights afterwards.
    """
    metrics = train_epoch(
        state.model,
        state.optimizer,
        updater,
        data,
        training=config.training,
        lr=lr,
        seed=config.seed,
        epoch=epoch,
        runtime=runtime,
        first_step=first_step,
    )
    state.position += 1
    if (group := group_of(runtime)).workers > 1:
        tensors = {name: tensor.detach().cpu() for name, tensor in state.model.state_dict().items()}
        group.require_same(f"the weights after epoch {epoch + 1}", tensors_sha256(tensors))
    return metrics


def validate(state: TrialState, updater: MaskUpdater, data: Data, config: TrialConfig, runtime: Runtime) -> dict[str, float]:
    """The validation metrics of the weights that the network computes with."""
    with updater.effective_weights():
        return evaluate(state.model, data.validation, data.normalization, runtime, "val", config.training.loss)
