"""AdaPrune: fits the weights that a layer keeps to the outputs of the dense layer, by Adam on some images.

As in SPDY (arXiv:2201.13096): batches of 32 and a learning rate of 1e-3; the error of a batch is ||f(x) - y||^2 / ||y||^2, with
x and y input and output of the layer in the dense network, in eval mode. Only the weight of the layer is trained, and masked
after each step. Here Adam starts anew at each sparsity.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from trainables.pruning.masks import Masks, apply_masks
from trainables.pruning.score_gradients import scoring_mode
from trainables.runtime.heartbeat import beat
from trainables.runtime.seeding import derived_seed

BATCH = 32
LEARNING_RATE, GLOBAL_LEARNING_RATE = 1e-3, 1e-5
SMALLEST = 1e-30  # of ||y||^2, where all outputs are zero


def fit_levels(
    layer: nn.Module, inputs: Tensor, outputs: Tensor, masks: Sequence[Tensor], *, passes: int, seed: int
) -> list[Tensor]:
    """The weight of a layer under each of these masks, each fitted from the one before; the layer stays as it is.

    Args:
        inputs, outputs: (N, ...) of the dense layer.
        masks: bool in the shape of the weight, from the most weights to the fewest, each a part of the one before.
        seed: of the order of the images.
    """
    fitted = copy.deepcopy(layer).requires_grad_(False)
    weight = fitted.get_parameter("weight").requires_grad_()
    found = []
    for level, mask in enumerate(masks):
        apply_masks({"weight": weight}, {"weight": mask})
        adam = torch.optim.Adam([weight], lr=LEARNING_RATE)
        generator = torch.Generator().manual_seed(derived_seed(seed, "adaprune", level))
        for _ in range(passes):
            for indices in torch.randperm(len(inputs), generator=generator).split(BATCH):
                indices = indices.to(inputs.device)
                adam.zero_grad()
                relative_error(fitted(inputs[indices]), outputs[indices]).backward()
                adam.step()
                apply_masks({"weight": weight}, {"weight": mask})
            beat()
        found.append(weight.detach().clone())
    return found


def relative_error(outputs: Tensor, wanted: Tensor) -> Tensor:
    """||f(x) - y||^2 / ||y||^2, a scalar."""
    return (outputs - wanted).square().sum() / wanted.square().sum().clamp(min=SMALLEST)


def layer_samples(model: nn.Module, layer: str, images_NCHW: Tensor) -> tuple[Tensor, Tensor] | None:
    """Inputs and outputs of a layer while the network sees these images, in eval mode; None if it is never called."""
    seen: list[tuple[Tensor, Tensor]] = []
    with torch.no_grad(), scoring_mode(model, "running"), _outputs({layer: model.get_submodule(layer)}, seen.append):
        for images_BCHW in images_NCHW.split(BATCH):
            model(images_BCHW)
            beat()
    if not seen:
        return None
    inputs, outputs = zip(*seen, strict=True)
    return torch.cat(inputs), torch.cat(outputs)


def fit_network(model: nn.Module, dense: nn.Module, masks: Masks, images_NCHW: Tensor, *, passes: int, seed: int) -> None:
    """Fits all parameters of a pruned network together, in place: the errors of all layers with masks are added.

    As `fit_levels`, with a learning rate of 1e-5. Masks are those of parameters, applied after each step.
    """
    parameters = dict(model.named_parameters())
    names = [name.removesuffix(".weight") for name in masks if name.removesuffix(".weight") in dict(model.named_modules())]
    adam = torch.optim.Adam(parameters.values(), lr=GLOBAL_LEARNING_RATE)
    generator = torch.Generator().manual_seed(derived_seed(seed, "global adaprune"))
    for _ in range(passes):
        for indices in torch.randperm(len(images_NCHW), generator=generator).split(BATCH):
            images_BCHW = images_NCHW[indices.to(images_NCHW.device)]
            with torch.no_grad():
                wanted = _all_outputs(dense, names, images_BCHW)
            outputs = _all_outputs(model, names, images_BCHW)
            adam.zero_grad()
            errors = [relative_error(one, other) for one, other in zip(outputs, wanted, strict=True)]
            torch.stack(errors).sum().backward()
            adam.step()
            apply_masks({name: parameters[name] for name in masks}, masks)
        beat()
    adam.zero_grad()


def _all_outputs(model: nn.Module, names: Sequence[str], images_BCHW: Tensor) -> list[Tensor]:
    seen: list[tuple[Tensor, Tensor]] = []
    with scoring_mode(model, "running"), _outputs({name: model.get_submodule(name) for name in names}, seen.append):
        model(images_BCHW)
    return [output for _, output in seen]


@contextmanager
def _outputs(layers: Mapping[str, nn.Module], note: Callable[[tuple[Tensor, Tensor]], None]) -> Iterator[None]:
    """Hands on the input and the output of these layers whenever they are called."""

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        note((inputs[0].detach(), output.clone()))  # the next layer may work in place

    handles = [layer.register_forward_hook(hook) for layer in layers.values()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
