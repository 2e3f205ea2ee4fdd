"""Checks that a network can train in the sweep's memory format, batch size and precision, deterministically."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from trainables.models.losses import batch_loss
from trainables.models.weight_use import gradient_failure, unchanged_state
from trainables.preflight.arithmetic import (
    Run,
    Values,
    disagreement,
    evaluation_run,
    foreign_generator,
    nondeterministic_values,
    rounded_run,
    seconds_of,
    training_run,
)
from trainables.preflight.examination import OUT_OF_MEMORY, Examination, error_line
from trainables.preflight.network_outputs import are_scores, same_bits
from trainables.wording import listed


def to_device(examination: Examination, model: nn.Module) -> nn.Module | None:
    """The network on the device, in a memory format that it supports; adds a finding where that is not the sweep's."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    contiguous = replace(examination.runtime, channels_last=False)
    problem: Exception | None = None
    for runtime in dict.fromkeys((examination.runtime, contiguous)):
        try:
            on_device = runtime.to_device(model)
            on_device.load_state_dict(state)
            images = runtime.to_memory_format(examination.images(2))
            with runtime.autocast():
                outputs = on_device.train()(images)
            if isinstance(outputs, Tensor) and outputs.requires_grad:
                outputs.float().sum().backward()
            on_device.zero_grad(set_to_none=True)
            on_device.load_state_dict(state)
        except OUT_OF_MEMORY:
            raise
        except Exception as error:
            problem = problem or error
            model = examination.build()
            continue
        if runtime != examination.runtime:
            examination.add(
                "memory_order",
                f"the network fails with images in channels_last order ({error_line(problem)}), so its trials keep the "
                "contiguous order",
                "use flatten or reshape in place of view for the faster one",
                "warning",
            )
            examination.runtime = contiguous
            examination.adjusted["channels_last"] = False
        return on_device
    assert problem is not None
    finding = gradient_failure(problem)
    examination.add(
        "training_step", f"the network must be able to train on a batch of images, got {error_line(problem)}", finding.hint
    )
    return None


def check_training(examination: Examination, model: nn.Module) -> None:
    """Checks one training pass of the sweep's batch size: outputs, gradients and arithmetic."""
    config = examination.case.config
    count = config.training.batch_size
    images, labels = examination.images(count), examination.labels(count)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with unchanged_state(model), torch.no_grad(), examination.runtime.autocast():
        try:
            outputs = model.train()(examination.runtime.to_memory_format(images[:2] if count > 1 else images))
        except OUT_OF_MEMORY:
            raise
        except Exception as error:
            examination.add(
                "outputs",
                f"the network must take a batch of images in training mode, got {error_line(error)}",
                "correct its forward",
            )
            return
        changed = [name for name, parameter in model.named_parameters() if not same_bits(parameter, before[name])]
    if changed:
        examination.add(
            "training_step",
            f"forward must leave weights to the optimizer and the masks, got a change of {listed(changed, 3)} in training mode",
            "compute with a changed copy, or change them in a loss",
        )
        return
    if not are_scores(examination, outputs, min(count, 2), "training"):
        return
    loss_of = batch_loss(config.training.loss, config.training.label_smoothing)
    run = training_run(model, images, labels, loss_of)
    exact = replace(examination.runtime, precision="fp32")

    def rounded() -> Values:
        return rounded_run(model, images, labels, loss_of)(exact)

    try:
        with unchanged_state(model):
            evaluations = [evaluation_run(model, examination.images(size)) for size in examination.evaluation_sizes[1:]]
            _check_arithmetic(examination, run, rounded, evaluations)
            if not examination.failed:
                examination.step_seconds = seconds_of(run, examination.runtime)
    except OUT_OF_MEMORY:
        raise
    except RuntimeError as error:
        finding = gradient_failure(error)
        hint = "set resources.deterministic: false" if "deterministic" in str(error) else finding.hint
        examination.add(
            "training_step",
            f"the network must be able to train on a batch of {count} images, got {error_line(error)}",
            hint,
        )


def _check_arithmetic(examination: Examination, training: Run, rounded: Callable[[], Values], evaluations: list[Run]) -> None:
    """Checks the sweep's precision; where "auto" chose bf16 and that is wrong, it falls back to fp32."""
    problem = _arithmetic_problem(examination, training, rounded, evaluations)
    if problem and examination.runtime.precision == "bf16":
        if examination.case.config.precision == "bf16":
            examination.add(
                "arithmetic",
                f"precision: bf16 must give the network's own numbers on this machine, but {problem}",
                "set precision: fp32",
            )
            return
        examination.add("arithmetic", f"precision: auto is fp32 for this network, since in bf16 {problem}", "", "warning")
        examination.runtime = replace(examination.runtime, precision="fp32")
        examination.adjusted["precision"] = "fp32"
        problem = _arithmetic_problem(examination, training, rounded, evaluations)
    if problem:
        source = foreign_generator(training, examination.runtime)
        hint = (
            f"draw with torch in forward, not with {source}"
            if source
            else "keep what forward changes in persistent buffers; if it changes nothing, report it with the network"
        )
        examination.add("arithmetic", f"the network must compute the same bits twice, but {problem}", hint)


def _arithmetic_problem(examination: Examination, training: Run, rounded: Callable[[], Values], evaluations: list[Run]) -> str:
    exact = replace(examination.runtime, precision="fp32")
    for kind, run in [("training", training), *(("evaluation", one) for one in evaluations)]:
        differing, values = nondeterministic_values(run, examination.runtime)
        if differing:
            hidden = "unused memory, or something outside its state_dict,"
            return f"two runs of the same {kind} pass differ in {differing}, as if {hidden} was read"
        is_rounded = examination.runtime.precision == "bf16" and kind == "training"
        if is_rounded and (problem := disagreement(values, run(exact), rounded)):
            return problem
    return ""
