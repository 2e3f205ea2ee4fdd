"""AdaPrune against least squares, nested levels, and the database stitched from them."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn

from trainables.pruning.adaprune import fit_levels, fit_network, layer_samples, relative_error
from trainables.pruning.layer_database import LayerDatabase, Reconstruction, nested_masks
from trainables.pruning.masks import full_masks
from trainables.pruning.timed_layers import LayerOptions, TimedLayers

OPTIONS = (256, 128, 40)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear_layer() -> tuple[nn.Linear, Tensor, Tensor]:
    """A layer of 32 inputs and 16 outputs, correlated inputs and its outputs."""
    layer = nn.Linear(32, 16, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(16, 32, generator=generator(0)) / 6)
        inputs = torch.randn(256, 32, generator=generator(1)) @ (
            torch.eye(32) + 0.1 * torch.randn(32, 32, generator=generator(2))
        )
        return layer, inputs, layer(inputs)


def least_squares(inputs: Tensor, outputs: Tensor, mask: Tensor) -> float:
    """The least error that any weight under the mask has, row by row in float64."""
    total = 0.0
    for row, wanted in zip(mask, outputs.double().T, strict=True):
        kept = inputs.double()[:, row]
        total += float((kept @ torch.linalg.lstsq(kept, wanted[:, None]).solution - wanted[:, None]).square().sum())
    return total / float(outputs.double().square().sum())


@pytest.mark.slow
def test_levels_come_near_the_least_squares_optimum_from_above() -> None:
    layer, inputs, outputs = linear_layer()
    masks = nested_masks(layer.weight.detach().abs(), [256, 128])
    before = layer.weight.detach().clone()
    for weight, mask in zip(fit_levels(layer, inputs, outputs, masks, passes=50, seed=0), masks, strict=True):
        with torch.no_grad():
            error = float(relative_error(inputs @ weight.T, outputs))
            masked = float(relative_error(inputs @ (before * mask).T, outputs))
        least = least_squares(inputs, outputs, mask)
        assert least * (1 - 1e-4) <= error <= 1.01 * least
        assert error < 0.95 * masked
        assert not bool(weight[~mask].any())
    assert bool((layer.weight == before).all())


def test_masks_are_nested_and_keep_the_first_of_equal_scores() -> None:
    scores = torch.tensor([[1.0, 3.0, 1.0], [2.0, 1.0, -1.0]])
    masks = nested_masks(scores, [5, 3, 1])
    assert [mask.int().tolist() for mask in masks] == [[[1, 1, 1], [1, 1, 0]], [[1, 1, 0], [1, 0, 0]], [[0, 1, 0], [0, 0, 0]]]
    last = torch.tensor([[False, False, True], [False, False, True]])
    ending = nested_masks(scores, [4, 3, 2], last)
    assert bool((ending[-1] == last).all())
    assert all(bool((smaller <= larger).all()) for larger, smaller in itertools.pairwise(ending))
    assert ending[0].int().tolist() == [[0, 1, 1], [1, 0, 1]]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 16), nn.ReLU(inplace=True), nn.Linear(16, 4)).eval()


def database(passes: int) -> tuple[Reconstruction, LayerDatabase, TimedLayers, nn.Sequential, Tensor, Tensor]:
    dense, images = network(), torch.randn(96, 32, generator=generator(3))
    labels = torch.randint(4, (96,), generator=generator(4))
    weights = {"0.weight": dense[0].get_parameter("weight"), "2.weight": dense[2].get_parameter("weight")}
    layers = {
        "0.weight": LayerOptions(counts=(512, 200, 50), times=(3, 2, 1)),
        "2.weight": LayerOptions(counts=(64, 30, 10), times=(3, 2, 1)),
    }
    timed = TimedLayers(layers=layers, fixed=0.0, whole=6.0)
    scores = {name: weight.detach().abs() for name, weight in weights.items()}
    reconstruction = Reconstruction(dense=dense, scores=scores, images=images, passes=passes, seed=5)
    loss = nn.CrossEntropyLoss(reduction="sum")
    return reconstruction, LayerDatabase(reconstruction, timed, labels, loss), timed, dense, images, labels


def test_stitched_loss_is_that_of_the_network_with_these_weights() -> None:
    reconstruction, found, timed, dense, images, labels = database(passes=2)
    counts = {"0.weight": 50, "2.weight": 64}
    by_hand = copy.deepcopy(dense)
    level = reconstruction.levels("0.weight", [200, 50])[-1]
    with torch.no_grad():
        by_hand.get_parameter("0.weight").copy_(level)
        expected = nn.functional.cross_entropy(by_hand(images), labels)
        assert found.loss({"0.weight": 512, "2.weight": 64}) == pytest.approx(
            float(nn.functional.cross_entropy(dense(images), labels)), rel=1e-6
        )
    assert found.loss(counts) == pytest.approx(float(expected), rel=1e-6)
    masks = {"0.weight": nested_masks(reconstruction.scores["0.weight"], [50])[0]}
    assert bool((reconstruction.with_masks(timed, masks)["0.weight"] == found.weights["0.weight"][50]).all())


def test_samples_are_of_the_layer_before_others_work_in_place() -> None:
    dense, images = network(), torch.randn(40, 32, generator=generator(3))
    samples = layer_samples(dense, "0", images)
    assert samples is not None
    assert torch.equal(samples[0], images)
    assert float(samples[1].min()) < 0  # before the ReLU
    torch.testing.assert_close(samples[1], dense[0](images).detach())


def test_all_layers_together_come_nearer_to_the_dense_network() -> None:
    dense, images = network(), torch.randn(96, 32, generator=generator(3))
    pruned = copy.deepcopy(dense)
    masks = full_masks({"0.weight": pruned.get_parameter("0.weight")})
    masks["0.weight"][:, ::2] = False
    with torch.no_grad():
        pruned.get_parameter("0.weight").mul_(masks["0.weight"])
        before = float(relative_error(pruned[0](images), dense[0](images)))
    fit_network(pruned, dense, masks, images, passes=30, seed=0)
    with torch.no_grad():
        after = float(relative_error(pruned[0](images), dense[0](images)))
    assert after < before
    assert not bool(pruned.get_parameter("0.weight")[:, ::2].any())
