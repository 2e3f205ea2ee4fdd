"""Naive and slow oracles: plain Python and NumPy in float64, written from the definitions, not from the code under test."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

Array = NDArray[Any]


def kept_positions(scores: Mapping[str, Tensor], masks: Mapping[str, Tensor], count: int) -> set[tuple[str, int]]:
    """The `count` survivors with the highest scores, by sorting; equal scores in the order of the network, then of position."""
    survivors: list[tuple[float, int, int, str]] = []
    for layer, (name, score) in enumerate(scores.items()):
        alive = masks[name].flatten().tolist()
        for position, value in enumerate(score.flatten().tolist()):
            if alive[position]:
                survivors.append((-value, layer, position, name))
    survivors.sort()
    return {(name, position) for _, _, position, name in survivors[:count]}


def positions(masks: Mapping[str, Tensor]) -> set[tuple[str, int]]:
    """Name and flat position of every kept weight."""
    return {(name, i) for name, mask in masks.items() for i, kept in enumerate(mask.flatten().tolist()) if kept}


def average_ranks(values: Sequence[float]) -> list[float]:
    """1-based ranks; each value's rank is the mean of the places that its equals take, by counting."""
    return [sum(o < v for o in values) + (sum(o == v for o in values) + 1) / 2 for v in values]


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Pearson correlation of the average ranks."""
    return float(np.corrcoef(average_ranks(first), average_ranks(second))[0, 1])


def drive_score(
    weights: Mapping[str, Array],
    grads: Mapping[str, Array],
    masks: Mapping[str, Array],
    factors: tuple[float, float, float],
    how: str,
) -> dict[str, Array]:
    """factors . (N(|w|), N(|w g|), N(|g|)) in float64, one weight at a time; entries that are pruned are NaN."""
    names = list(weights)
    raw: list[dict[tuple[str, int], float]] = [{}, {}, {}]
    for name in names:
        w, g, m = (np.asarray(part[name], dtype=np.float64).reshape(-1) for part in (weights, grads, masks))
        for i in np.flatnonzero(m).tolist():
            raw[0][name, i] = abs(float(w[i]))
            raw[1][name, i] = abs(float(w[i]) * float(g[i]))
            raw[2][name, i] = abs(float(g[i]))
    scores = {name: np.full(np.asarray(weights[name]).size, np.nan) for name in names}
    scaled = [_normalized(term, how) for term in raw]
    for place in raw[0]:
        scores[place[0]][place[1]] = sum(factor * term[place] for factor, term in zip(factors, scaled, strict=True))
    return {name: scores[name].reshape(np.asarray(weights[name]).shape) for name in names}


def _normalized(term: dict[tuple[str, int], float], how: str) -> dict[tuple[str, int], float]:
    if how == "none":
        return term
    if how == "rank":
        ranks = average_ranks(list(term.values()))
        return {place: rank / len(term) for place, rank in zip(term, ranks, strict=True)}
    scale = math.fsum(term.values()) / {"mean": len(term), "sum": 1}[how]
    return {place: value / scale if scale else value for place, value in term.items()}


def gate_gradients(model: nn.Module, names: Sequence[str], images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """dL/dc at c = 1 where every named weight w is replaced by c * w; BN with batch statistics.

    The gates are real parameters of the graph: the forward pass multiplies, autograd differentiates.
    """
    parameters = dict(model.named_parameters())
    gates = {name: torch.ones_like(parameters[name], requires_grad=True) for name in names}
    replaced = {name: gates[name] * parameters[name].detach() for name in names}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    was_training = model.training
    model.train()
    logits = torch.func.functional_call(model, replaced | buffers, (images,))
    model.train(was_training)
    cross_entropy(logits, labels).backward()
    return {name: gate.grad for name, gate in gates.items() if gate.grad is not None}


def sgd_step(
    weight: Array,
    grad: Array,
    momentum_buffer: Array | None,
    *,
    lr: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
) -> tuple[Array, Array]:
    """One step of SGD with momentum as PyTorch's documentation defines it (no dampening): the weight and the buffer."""
    slope = grad + weight_decay * weight
    buffer = slope if momentum_buffer is None else momentum * momentum_buffer + slope
    return weight - lr * (slope + momentum * buffer if nesterov else buffer), buffer
