"""Every method against its definition: closed forms, autograd in another way, or counting; and what they have in common."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.support.oracles import gate_gradients
from tests.support.trials import DIGITS, RUNTIME, in_float64, new_storage, run, selection_for, tiny_config
from trainables.config.counts import kept_count
from trainables.config.method import Course
from trainables.config.methods import METHODS, DriveConfig, GraspConfig, RandomConfig, SnipConfig
from trainables.config.trial import TrainingConfig, TrialConfig
from trainables.data.batches import class_balanced_batches, scoring_batches
from trainables.data.splits import Data, load_data
from trainables.models.prunable import prunable_weights
from trainables.models.registry import build_model, initialize
from trainables.pruning import score_gradients
from trainables.pruning.masks import Masks, full_masks, num_kept
from trainables.pruning.rounds import prune_round
from trainables.pruning.score_gradients import hessian_gradient_products, scoring_gradients
from trainables.pruning.sparse_trainers import MaskUpdater
from trainables.pruning.sparsity_distributions import erk, round_to_total
from trainables.pruning.synflow import synaptic_flow
from trainables.training.loop import train_epoch
from trainables.training.optimizer import make_optimizer

PRUNING = [method for method in METHODS if method != "dense"]
ROUNDS_OF_COURSE = {Course.ROUNDS: 4, Course.ONE_ROUND: 1, Course.LEVELS: 12}
ROUNDS = {name: ROUNDS_OF_COURSE[one.course] for name, one in METHODS.items() if one.course in ROUNDS_OF_COURSE}


def digits(config: TrialConfig | None = None) -> Data:
    return in_float64(load_data((config or tiny_config()).dataset, DIGITS, "cpu"))


def network(name: str = "convnet", side: int = 8, channels: int = 1) -> nn.Module:
    model = build_model(name, (channels, side, side), 10)
    initialize(model, 0)
    return RUNTIME.to_device(model.double())


def masks_of(config: TrialConfig, model: nn.Module | None = None, data: Data | None = None) -> list[Masks]:
    """The masks after every round, on a convnet and on digits unless others are given."""
    model, data = model or network(), data or digits(config)
    weights = prunable_weights(model)
    masks, masks_by_round = full_masks(weights), []
    for round_ in range(1, config.rounds + 1):
        masks, *_ = prune_round(model, weights, masks, data, config, round_, RUNTIME, selection=selection_for(config, model))
        masks_by_round.append(masks)
    return masks_by_round


def equal(first: Masks, second: Masks) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("method", ROUNDS)
def test_scorers_shrink_masks_to_the_exact_count(method: Any) -> None:
    config = tiny_config(method=method, prune_iterations=4, sparsity=0.93)
    masks_by_round = masks_of(config)
    assert len(masks_by_round) == ROUNDS[method]
    for before, after in pairwise(masks_by_round):
        assert not any((after[name] & ~before[name]).any() for name in after)
        assert num_kept(after) < num_kept(before)
    kept = num_kept(masks_by_round[-1])
    assert 0 < kept <= kept_count(0.93, 15_248) if config.prunes_channels else kept == kept_count(0.93, 15_248)


@pytest.mark.parametrize("method", ROUNDS)
def test_scorers_do_not_change_the_network(method: Any) -> None:
    model = network().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random_state = torch.get_rng_state()
    weights = prunable_weights(model)
    config = tiny_config(method=method)
    selection = selection_for(config, model)
    masks, *_ = prune_round(model, weights, full_masks(weights), digits(config), config, 1, RUNTIME, selection=selection)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name] * masks[name] if name in masks else before[name]), name


@pytest.mark.parametrize("method", PRUNING)
def test_trial_of_every_method_is_reproducible(method: Any, tmp_path: Any) -> None:
    config = tiny_config(method=method, sparsity=0.5)
    results = [run(config, new_storage(tmp_path / name)) for name in ("first", "second")]
    assert results[0]["model_sha256"] == results[1]["model_sha256"]
    conv1 = 144  # its one input channel is no multiple of 4: N:M leaves it dense
    expected = conv1 + (15_248 - conv1) // 2 if method == "srste" else kept_count(0.5, 15_248)
    kept = results[0]["kept_weights"]
    assert expected - 700 < kept <= expected if config.prunes_channels else kept == expected


def test_snip_keeps_the_largest_gate_gradients() -> None:
    config = tiny_config(method="snip", prune_iterations=1)
    model = network()
    names = list(prunable_weights(model))
    ((images, labels),) = scoring_batches(digits(), config.training.batch_size, 1, config.seed, 1)
    gates = gate_gradients(model, names, images, labels)
    sizes = torch.cat([gates[name].abs().flatten() for name in names])
    threshold = sizes.sort(descending=True).values[kept_count(0.9, 15_248) - 1]
    (masks,) = masks_of(config)
    assert all(torch.equal(masks[name], gates[name].abs() >= threshold) for name in names)


def test_drive_with_one_term_is_magnitude_or_snip() -> None:
    one = tiny_config(prune_iterations=1)
    magnitude = replace(one, options=DriveConfig(connection=0, convergence=0))
    connection = replace(one, options=DriveConfig(magnitude=0, convergence=0))
    assert equal(masks_of(magnitude)[0], masks_of(replace(one, method="magnitude"))[0])
    assert equal(masks_of(connection)[0], masks_of(replace(one, method="snip"))[0])
    assert not equal(masks_of(magnitude)[0], masks_of(connection)[0])


def test_magnitude_without_training_equals_one_shot() -> None:
    magnitude = DriveConfig(connection=0, convergence=0)
    iterated = masks_of(tiny_config(prune_iterations=7, options=magnitude))
    assert equal(iterated[-1], masks_of(tiny_config(method="magnitude"))[0])


@pytest.mark.parametrize("mode", ["batch", "running"])
def test_snip_uses_the_configured_batch_norm_statistics(mode: Any) -> None:
    config = tiny_config(method="snip", options=SnipConfig(batch_norm=mode))
    model = network()
    weights = prunable_weights(model)
    ((images, labels),) = scoring_batches(digits(), config.training.batch_size, 1, config.seed, 1)
    _, grads = scoring_gradients(model, weights, [(images, labels)], RUNTIME, mode)
    model.train(mode == "batch")
    expected = torch.autograd.grad(cross_entropy(model(images), labels), list(weights.values()))
    for name, grad in zip(weights, expected, strict=True):
        torch.testing.assert_close(grads[name], grad, rtol=1e-4, atol=1e-7)  # the loss is float32


class Bowl(nn.Module):
    """Two weights, and as its output the loss w A w / 2 itself."""

    A = torch.tensor([[3.0, 1.0], [1.0, 2.0]], dtype=torch.float64)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, -0.4], dtype=torch.float64))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return (self.weight @ self.A @ self.weight / 2).view(1, 1)


def test_grasp_on_a_quadratic_preserves_gradient_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    """g = A w and H = A, so w (H g) = w (A A w); removing the weight with the lowest loses least of the gradient's norm."""
    monkeypatch.setattr(score_gradients, "batch_loss", lambda name: lambda outputs, labels: outputs.sum())
    monkeypatch.setattr(Tensor, "float", lambda tensor: tensor)
    bowl = Bowl()
    weights: dict[str, Tensor] = {"weight": bowl.weight}
    batch = (torch.zeros(1, 1, 2, 2), torch.zeros(1))
    runtime = replace(RUNTIME, channels_last=False)
    _, products = hessian_gradient_products(bowl, weights, full_masks(weights), [batch], runtime, "batch", 1.0)
    w, a = bowl.weight.detach(), Bowl.A
    torch.testing.assert_close(products["weight"], a @ a @ w, rtol=1e-14, atol=0)
    scores = w * products["weight"]
    # First order: |A w|^2 changes by -2 w_i (A A w)_i when w_i goes to zero.
    for index in range(2):
        step = w.clone()
        step[index] *= 1 - 1e-6
        change = ((a @ step).square().sum() - (a @ w).square().sum()) / 1e-6
        assert float(change) == pytest.approx(-2 * float(scores[index]), rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 200.0])
def test_hessian_products_equal_those_of_the_full_hessian(temperature: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False)).double()
    weights = prunable_weights(model)
    batches = [(torch.randn(count, 1, 2, 2).double(), torch.arange(count) % 3) for count in (5, 4)]
    images, labels = torch.cat([batch[0] for batch in batches]), torch.cat([batch[1] for batch in batches])
    masks = {"1.weight": torch.arange(12).view(3, 4) % 4 != 0}

    def loss(flat: Tensor) -> Tensor:
        return cross_entropy(images.flatten(1) @ flat.view(3, 4).T / temperature, labels)

    flat = weights["1.weight"].detach().flatten()
    gradient = torch.autograd.functional.jacobian(loss, flat) * masks["1.weight"].flatten()
    hessian: Any = torch.autograd.functional.hessian(loss, flat)
    _, products = hessian_gradient_products(model, weights, masks, batches, RUNTIME, "batch", temperature)
    torch.testing.assert_close(products["1.weight"].flatten(), hessian @ gradient, rtol=1e-5, atol=1e-12)


def test_grasp_prunes_by_its_products() -> None:
    config = tiny_config(method="grasp", prune_iterations=1, options=GraspConfig(images_per_class=3))
    model = network()
    weights = prunable_weights(model)
    batches = list(class_balanced_batches(digits(), config.training.batch_size, 3, config.seed, 1))
    _, products = hessian_gradient_products(model, weights, full_masks(weights), batches, RUNTIME, "batch", 200.0)
    scores = torch.cat([(weights[name].detach() * products[name]).flatten() for name in weights])
    expected = scores >= scores.sort(descending=True).values[kept_count(0.9, 15_248) - 1]
    (masks,) = masks_of(config)
    assert torch.equal(torch.cat([mask.flatten() for mask in masks.values()]), expected)


def test_class_balanced_batches_differ_by_round() -> None:
    data = digits()
    batches = list(class_balanced_batches(data, 16, 3, 0, 1))
    assert [len(labels) for _, labels in batches] == [15, 15]
    assert torch.cat([labels for _, labels in batches]).bincount().tolist() == [3] * 10
    assert all(len(labels.unique()) > 5 for _, labels in batches)  # ordered by class there would be 5 or 6, ascending
    assert any(labels.tolist() != sorted(labels.tolist()) for _, labels in batches)
    other = list(class_balanced_batches(data, 16, 3, 0, 2))
    assert not torch.equal(other[0][0], batches[0][0])


@pytest.mark.parametrize("name", ["lenet300", "vgg11", "alexnet"])
def test_synaptic_flow_is_equal_in_every_layer(name: str) -> None:
    model = network(name, side=32, channels=3)
    with torch.no_grad():  # what a warm-up leaves behind must not enter the flow
        for buffer in model.buffers():
            buffer.add_(1)
        for parameter_name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 if parameter_name.endswith("bias") else 0.1)
    flow = synaptic_flow(model, prunable_weights(model), (3, 32, 32))
    sums = torch.stack([layer.sum() for layer in flow.values()])
    assert float(sums.min()) > 0
    assert float((sums.max() - sums.min()) / sums.max()) < 1e-12


def test_synaptic_flow_of_two_layers_equals_hand_calculation() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    weights = prunable_weights(model)
    with torch.no_grad():
        weights["1.weight"].copy_(torch.tensor([[1.0, -2.0], [3.0, 0.5]]))
        weights["3.weight"].copy_(torch.tensor([[-4.0, 5.0]]))
    flow = synaptic_flow(model, weights, (1, 1, 2))
    assert flow["1.weight"].tolist() == [[4.0, 8.0], [15.0, 2.5]]
    assert flow["3.weight"].tolist() == [[12.0, 17.5]]


@pytest.mark.extended
@pytest.mark.slow  # 30 rounds on VGG-11 at its full width
def test_synflow_collapses_no_layer_where_magnitude_does() -> None:
    config = tiny_config(method="synflow", prune_iterations=30, sparsity=0.999)
    emptied = {}
    for method in ("synflow", "magnitude"):
        masks = masks_of_vgg(replace(config, method=method))
        emptied[method] = [name for name, mask in masks.items() if not mask.any()]
    assert emptied["synflow"] == []
    assert emptied["magnitude"]


def masks_of_vgg(config: TrialConfig) -> Masks:
    model = build_model("vgg11", (1, 32, 32), 10)
    initialize(model, 0)
    data = digits()
    images = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)  # neither method looks at one
    data = replace(data, train=replace(data.train, images=images, labels=data.train.labels[:1]))
    return masks_of(config, model, data)[-1]


def test_random_masks_are_seeded_and_uniform() -> None:
    config = tiny_config(method="random", sparsity=0.5)
    (first,), (again,), (other,) = masks_of(config), masks_of(config), masks_of(replace(config, seed=1))
    assert equal(first, again)
    # Two random masks of density p agree where both keep or both prune: p^2 + (1 - p)^2; a half here, within 5 sigma.
    same = sum(int((first[name] == other[name]).sum()) for name in first) / 15_248
    assert abs(same - 0.5) < 5 * 0.5 / 15_248**0.5
    for mask in first.values():
        assert abs(float(mask.double().mean()) - 0.5) < 5 * 0.5 / mask.numel() ** 0.5


def test_erk_densities_are_proportional_up_to_one() -> None:
    shapes = {"a": (16, 1, 3, 3), "b": (32, 16, 3, 3), "c": (32, 32, 3, 3), "d": (10, 128)}
    densities = erk(shapes, 0.2)
    sizes = {name: prod(shape) for name, shape in shapes.items()}
    assert sum(densities[name] * sizes[name] for name in sizes) == pytest.approx(0.2 * sum(sizes.values()), rel=1e-12)
    assert densities["a"] == densities["d"] == 1.0
    b, c = (densities[name] / (sum(shapes[name]) / sizes[name]) for name in "bc")
    assert b == pytest.approx(c, rel=1e-12)
    assert all(value <= 1 for value in densities.values())


def test_random_erk_masks_keep_the_erk_counts() -> None:
    (masks,) = masks_of(tiny_config(method="random", options=RandomConfig(layers="erk")))
    shapes = {name: tuple(mask.shape) for name, mask in masks.items()}
    sizes = {name: mask.numel() for name, mask in masks.items()}
    keep = kept_count(0.9, 15_248)
    exact = {name: density * sizes[name] for name, density in erk(shapes, keep / 15_248).items()}
    for name, mask in masks.items():
        assert abs(int(mask.sum()) - exact[name]) <= 1
    assert num_kept(masks) == keep


def test_round_to_total_rounds_up_the_largest_remainders() -> None:
    sizes = {"a": 10, "b": 10, "c": 10}
    assert round_to_total({"a": 0.16, "b": 0.17, "c": 0.27}, sizes, 6) == {"a": 1, "b": 2, "c": 3}
    assert round_to_total({"a": 0.15, "b": 0.15, "c": 0.2}, sizes, 5) == {"a": 2, "b": 1, "c": 2}


def one_step(**options: Any) -> tuple[Tensor, float, Tensor]:
    """All weights after one step of SGD at rate 1 without momentum, the reported loss, and the weights before."""
    data = digits()
    data = replace(data, train=replace(data.train, images=data.train.images[:20], labels=data.train.labels[:20]))
    training = TrainingConfig(batch_size=20, momentum=0.0, weight_decay=0.0, **options)
    model = network()
    before = torch.cat([parameter.detach().flatten().clone() for parameter in model.parameters()])
    optimizer = make_optimizer(model, training)
    metrics = train_epoch(model, optimizer, MaskUpdater(), data, training=training, lr=1.0, seed=0, epoch=0, runtime=RUNTIME)
    after = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    return after, metrics["train/loss"], before


def test_clip_norm_keeps_the_direction_of_the_step() -> None:
    free, _, before = one_step()
    clipped, _, _ = one_step(clip_norm=0.01)
    assert float((free - before).norm()) > 0.1
    assert float((clipped - before).norm()) == pytest.approx(0.01, rel=1e-3)
    assert float(torch.cosine_similarity(free - before, clipped - before, dim=0)) == pytest.approx(1.0)


def test_label_smoothing_mixes_in_the_loss_of_all_classes() -> None:
    """Cross entropy against (1 - a) one-hot + a / K is linear in a, so the mean of the ends is the middle."""
    losses = [one_step(label_smoothing=share)[1] for share in (0.0, 0.2, 0.4)]
    assert losses[1] == pytest.approx((losses[0] + losses[2]) / 2, rel=1e-6)
    assert len(set(losses)) == 3
