"""Scores by a custom function: `method: {module: FILE.FUNCTION, options: {...}}`.

The function gets a ScoringContext and returns the scores of the surviving weights, (S,). PyTorch's generator is seeded for the
call, so that a resumed trial draws the same numbers; afterwards the network is restored.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.custom.imports import load_function
from trainables.errors import ConfigError, TrialError
from trainables.models.weight_use import unchanged_state
from trainables.pruning.scoring import Scores, ScoringContext
from trainables.runtime.seeding import derived_seed


def score_custom(context: ScoringContext) -> Scores:
    """The function's scores.

    Raises:
        ConfigError: the function raises, or does not return one number for each surviving weight.
        TrialError: what has failed is not the function's, such as another worker.
    """
    method = context.config.method
    count = len(context.flatten(context.weights))
    devices = [context.runtime.device] if context.runtime.device.startswith("cuda") else []
    with unchanged_state(context.model), torch.random.fork_rng(devices=devices):
        torch.manual_seed(derived_seed(context.config.seed, f"custom score {context.round_}"))
        try:
            scores = load_function(method)(context)
        except (torch.OutOfMemoryError, TrialError):  # the latter of gradients, such as a lost worker
            raise
        except Exception as error:
            raise ConfigError(
                f"method: {method} must score weights, got {type(error).__name__}: {error}", "correct it"
            ) from error
    if not isinstance(scores, Tensor) or tuple(scores.shape) != (count,) or not scores.dtype.is_floating_point:
        got = f"{scores.dtype} {tuple(scores.shape)}" if isinstance(scores, Tensor) else type(scores).__name__
        raise ConfigError(
            f"method: {method} must return a float tensor with a score for each of {count:,} surviving weights, got {got}",
            "return context.flatten({name: score of every weight})",
        )
    return Scores(scores=scores.detach())


def check_custom_scores(context: ScoringContext) -> None:
    """Raises ConfigError if the function cannot score this network, or scores it differently on a second call."""
    first, second = (score_custom(context).scores for _ in range(2))
    if not torch.equal(first, second) and not (first.isnan() | second.isnan()).any():
        raise ConfigError(
            f"method: {context.config.method} must return the same scores when it is called again on the same network",
            "draw random numbers from PyTorch alone, and keep nothing between calls",
        )
