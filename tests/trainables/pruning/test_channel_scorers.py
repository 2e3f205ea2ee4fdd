"""Scores of channels: Hutchinson's estimate against full Hessians, Taylor scores against their definition."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.support.trials import RUNTIME, tiny_config
from trainables.channels.dependencies import find_units
from trainables.config.methods import HapConfig, TaylorConfig
from trainables.config.trial import TrialConfig
from trainables.models.prunable import prunable_weights
from trainables.models.registry import build_model, initialize
from trainables.pruning.channel_scorers import score_hap, score_taylor
from trainables.pruning.curvature import row_traces, traces_along
from trainables.pruning.scoring import Batch, ScoringContext

SHAPE = (1, 8, 8)


def batch(images: int, seed: int = 0, shape: tuple[int, ...] = SHAPE, classes: int = 10) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(images, *shape, generator=generator, dtype=torch.float64)
    return drawn, torch.randint(0, classes, (images,), generator=generator)


def context_of(network: nn.Module, batches: Sequence[Batch], config: TrialConfig, **changes: object) -> ScoringContext:
    def draw(images_per_class: int | None, score_batches: int) -> Iterator[Batch]:
        return iter(batches[:score_batches])

    weights = prunable_weights(network)
    values: dict[str, object] = {
        "model": network,
        "weights": weights,
        "masks": {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()},
        "surviving": None,
        "keep": 1,
        "config": config,
        "round_": 1,
        "image_shape": SHAPE,
        "runtime": RUNTIME,
        "train_images": 16,
        "draw_batches": draw,
    }
    return ScoringContext(**values | changes)  # type: ignore[arg-type]


def all_signs(shape: torch.Size) -> list[list[Tensor]]:
    count = shape.numel()
    return [[torch.tensor(signs, dtype=torch.float64).view(shape)] for signs in itertools.product((-1.0, 1.0), repeat=count)]


def test_estimate_has_the_trace_as_its_mean_and_the_derived_variance() -> None:
    """Of softmax regression, over all signs there are; the trace of a class is also the mean of p (1 - p) |x|^2."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(3, 3, bias=False)).double()
    images, labels = batch(7, shape=(1, 1, 3), classes=3)
    weight = network[1].weight
    assert isinstance(weight, Tensor)

    def loss_of(flat: Tensor) -> Tensor:
        return cross_entropy(images.flatten(1) @ flat.view(3, 3).T, labels)

    hessian = torch.autograd.functional.hessian(loss_of, weight.detach().flatten())
    blocks = [slice(3 * row, 3 * row + 3) for row in range(3)]
    exact = torch.stack([hessian[block, block].diagonal().sum() for block in blocks])
    probabilities = torch.softmax(images.flatten(1) @ weight.detach().T, 1)
    closed = (probabilities * (1 - probabilities) * images.flatten(1).square().sum(1, keepdim=True)).mean(0)
    assert exact.tolist() == pytest.approx(closed.tolist(), rel=1e-12)

    context = context_of(network, [(images, labels)], tiny_config())
    estimates = torch.stack(
        [traces_along(context, [signs], [(images, labels)], "running")[1]["1.weight"] for signs in all_signs(weight.shape)]
    )
    assert estimates.mean(0).tolist() == pytest.approx(exact.tolist(), rel=1e-5)  # the loss is of float32 logits
    squares = hessian.square()
    for row, block in enumerate(blocks):
        inside = squares[block, block].sum() - squares[block, block].diagonal().sum()
        outside = squares[block].sum() - squares[block, block].sum()
        assert float(estimates[:, row].var(correction=0)) == pytest.approx(float(2 * inside + outside), rel=1e-5)
    loss, together = traces_along(context, all_signs(weight.shape), [(images, labels)], "running")
    assert together["1.weight"].tolist() == pytest.approx(exact.tolist(), rel=1e-5)
    assert float(loss) == pytest.approx(float(loss_of(weight.detach().flatten())), rel=1e-5)


def naive_sensitivity(context: ScoringContext, probes: int) -> list[float]:
    """Half the mean eigenvalue of each filter's block of the Hessian, times the filter's squared norm, by unit."""
    units = context.units
    assert units is not None
    traces = row_traces(context, probes, 1, "running")[1]
    scores = [0.0] * units.count
    for group in units.groups:
        for layer in group.layers:
            for row, unit in enumerate(units.unit_of[f"{layer}.weight", 0].tolist()):
                numbers = context.weights[f"{layer}.weight"][row].flatten().tolist()
                eigenvalue = float(traces[f"{layer}.weight"][row]) / len(numbers)
                scores[unit] += eigenvalue / 2 * sum(number**2 for number in numbers)
    return scores


def test_sensitivity_is_the_mean_curvature_times_the_squared_norm() -> None:
    network = build_model("convnet", SHAPE, 10).double()
    initialize(network, 0)
    units = find_units(network, SHAPE)
    config = tiny_config(method="hap", granularity="channel", options=HapConfig(probes=3))
    batches = [batch(8, seed) for seed in range(2)]
    context = context_of(network, batches, config, units=units)
    scores = score_hap(context).scores
    assert scores.shape == (units.count,)
    assert scores.tolist() == pytest.approx(naive_sensitivity(context, probes=3))
    assert bool((scores < 0).any()), "the loss is not convex here"
    clamped = score_hap(replace(context, config=replace(config, options=HapConfig(probes=3, clamp=True)))).scores
    assert torch.equal(clamped, scores.clamp(min=0))
    with torch.no_grad():
        network.get_parameter("conv1.weight")[2] = 0.0
    assert float(score_hap(context).scores[units.groups[0].start + 2]) == 0.0
    again, other = score_hap(context).scores, score_hap(replace(context, round_=2)).scores
    assert torch.equal(again, score_hap(context).scores)
    assert not torch.equal(again, other)


def naive_taylor(network: nn.Module, batches: Sequence[Batch], layer: str) -> Tensor:
    """Of the channels of one norm layer, in train mode as a score with batch statistics is."""
    network.train()
    total = torch.zeros(len(network.get_parameter(f"{layer}.weight")), dtype=torch.float64)
    for images, labels in batches:
        scale, shift = (network.get_parameter(f"{layer}.{name}") for name in ("weight", "bias"))
        by_scale, by_shift = torch.autograd.grad(cross_entropy(network(images), labels), [scale, shift])
        total += (scale * by_scale + shift * by_shift).detach().abs()
    return total / len(batches)


def test_taylor_scores_are_those_of_norm_layers_by_batch() -> None:
    network = build_model("convnet", SHAPE, 10).double()
    initialize(network, 0)
    with torch.no_grad():
        for name in ("norm1", "norm2", "norm3"):
            network.get_parameter(f"{name}.bias").uniform_(-1, 1)
    units = find_units(network, SHAPE)
    batches = [batch(8, seed) for seed in range(2)]
    config = tiny_config(method="taylor", granularity="channel", options=TaylorConfig(score_batches=2))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    scores = score_taylor(context_of(network, batches, config, units=units)).scores
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    for group, layer in zip(units.groups, ("norm1", "norm2", "norm3"), strict=True):
        expected = naive_taylor(network, batches, layer)
        assert scores[list(group.units)].tolist() == pytest.approx(expected.tolist(), rel=1e-5)


def test_taylor_scores_of_tied_layers_are_added_before_the_absolute_value() -> None:
    network = build_model("resnet20", SHAPE, 10).double()
    initialize(network, 0)
    units = find_units(network, SHAPE)
    given = batch(8)
    config = tiny_config(method="taylor", granularity="channel", options=TaylorConfig())
    scores = score_taylor(context_of(network, [given], config, units=units)).scores
    network.train()
    names = ["norm", *(f"blocks.{index}.norm2" for index in range(3))]
    parameters = [network.get_parameter(f"{name}.{kind}") for name in names for kind in ("weight", "bias")]
    grads = torch.autograd.grad(cross_entropy(network(given[0]), given[1]), parameters)
    products = sum((value * grad).detach() for value, grad in zip(parameters, grads, strict=True))
    (stream,) = (group for group in units.groups if group.name == "conv")
    assert isinstance(products, Tensor)
    assert scores[list(stream.units)].tolist() == pytest.approx(products.abs().tolist(), rel=1e-5)


def test_gradients_of_opposite_sign_do_not_cancel() -> None:
    """Two batches whose products are opposite: the mean of absolute values is theirs, the value of the mean would be 0."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False), nn.Linear(2, 2, bias=False)).double()
    with torch.no_grad():
        network.get_parameter("1.weight").copy_(torch.tensor([[1.0], [2.0]]))
        network.get_parameter("2.weight").copy_(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
    units = find_units(network, (1, 1, 1))
    images = torch.full((1, 1, 1, 1), 1e-9, dtype=torch.float64)  # so that both classes are as likely
    batches = [(images, torch.tensor([label])) for label in (0, 1)]
    config = tiny_config(method="taylor", granularity="channel", options=TaylorConfig(score_batches=2))
    together = score_taylor(context_of(network, batches, config, units=units)).scores
    alone = [
        score_taylor(context_of(network, [one], replace(config, options=TaylorConfig(score_batches=1)), units=units)).scores
        for one in batches
    ]
    assert bool((together > 0).all())
    assert together.tolist() == pytest.approx(((alone[0] + alone[1]) / 2).tolist(), rel=1e-12)
