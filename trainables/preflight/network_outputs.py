"""Checks that a network's outputs are class scores: in eval mode for every batch size, and in training mode."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trainables.preflight.arithmetic import evaluation_run
from trainables.preflight.examination import OUT_OF_MEMORY, Examination, error_line

TOLERANCE = 0.01  # of the largest score: kernels for other batch sizes round differently


def check_outputs(examination: Examination, model: nn.Module) -> bool:
    """Whether outputs in eval mode are class scores for every batch size, and eval mode changes nothing."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for count in examination.evaluation_sizes:
        try:
            run = evaluation_run(model, examination.images(count))
            outputs = run(examination.runtime)["outputs"]
        except OUT_OF_MEMORY:
            raise
        except Exception as error:
            examination.add(
                "outputs",
                f"the network must take a batch of {count} images in eval mode, got {error_line(error)}",
                "correct its forward",
            )
            return False
        if not are_scores(examination, outputs, count, "eval"):
            return False
    torch.manual_seed(0)
    images = examination.runtime.to_memory_format(examination.images(2))
    model.eval()
    with torch.inference_mode():
        first, second = model(images), model(images)
    if not torch.equal(first, second):
        examination.add(
            "outputs",
            "the network must answer the same twice in eval mode, got two answers",
            "give dropout training=self.training, and draw nothing at random there",
        )
    if not examination.failed and (mixed := _mixing(model, examination)):
        examination.add(
            "outputs",
            f"the network must answer for each image of a batch by itself in eval mode, got other scores for an image {mixed}",
            "use running statistics, and batch_first=True for attention and recurrent layers",
        )
    changed = [name for name, value in model.state_dict().items() if not same_bits(value, before[name])]
    if changed:
        examination.add(
            "outputs",
            f"the network must change nothing in eval mode, got another {changed[0]}",
            "change buffers only while self.training",
        )
    if examination.case.config.training.loss == "cross_entropy" and _are_probabilities(first.float()):
        examination.add(
            "outputs",
            "the network returns probabilities, and cross_entropy takes their softmax once more",
            "return logits",
            "warning",
        )
    return not examination.failed


def _mixing(model: nn.Module, examination: Examination) -> str:
    """In which other batch an image gets other scores than in a batch of four; empty if in none."""
    images = examination.images(4)
    with torch.inference_mode():
        together, alone, reversed_ = (
            model(examination.runtime.to_memory_format(batch)).float() for batch in (images, images[1:2], images.flip(0))
        )
    tolerance = TOLERANCE * float(together.abs().max())
    if float((together[1] - alone[0]).abs().max()) > tolerance:
        return "alone"
    return "in another order of the images" if float((together - reversed_.flip(0)).abs().max()) > tolerance else ""


def are_scores(examination: Examination, outputs: Any, count: int, mode: str) -> bool:
    """Whether the outputs are finite class scores; adds a finding if not."""
    got, shape = "", (count, examination.num_classes)
    if not isinstance(outputs, Tensor):
        got = type(outputs).__name__
    elif tuple(outputs.shape) != shape:
        got = f"shape {tuple(outputs.shape)}"
    elif not bool(outputs.float().isfinite().all()):
        got = "values that are not finite"
    if got:
        examination.add(
            "outputs",
            f"the network must return finite class scores of shape {shape} in {mode} mode, got {got}",
            "return the main scores alone, in both modes",
        )
    return not got


def _are_probabilities(outputs_BK: Tensor) -> bool:
    sums = outputs_BK.sum(1)
    return outputs_BK.shape[1] > 1 and bool((outputs_BK >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-2)


def same_bits(value: Tensor, before: Tensor) -> bool:
    """Whether the values are equal; NaN equals NaN."""
    return torch.equal(value, before) or (
        value.is_floating_point() and torch.equal(value.nan_to_num(7e30), before.nan_to_num(7e30))
    )
