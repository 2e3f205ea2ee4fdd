"""The DRIVE score against gates, naive float64 arithmetic and scipy."""

from __future__ import annotations

import itertools
import math
from typing import Any, get_args

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from tests.support import oracles as reference
from tests.support.trials import DIGITS, tiny_config
from trainables.config.counts import kept_count
from trainables.config.methods import DriveConfig, Normalize
from trainables.data.batches import scoring_batches
from trainables.data.splits import load_data
from trainables.models.prunable import prunable_weights
from trainables.models.registry import build_model, initialize
from trainables.pruning import rank_correlation as rank_correlation_module
from trainables.pruning.drive import drive_score, drive_terms, normalized
from trainables.pruning.masks import Masks, flattened, full_masks, num_kept, surviving_indices, topk_masks
from trainables.pruning.rank_correlation import average_ranks, rank_correlation, term_correlations
from trainables.pruning.rounds import correlation_rounds, prune_round
from trainables.pruning.score_gradients import scoring_gradients
from trainables.runtime.device import Runtime

NORMALIZERS: tuple[Normalize, ...] = get_args(Normalize)
Batch = tuple[Tensor, Tensor]
GIVEN_ORDER = Runtime(channels_last=False)  # images stay in the order that the gates compute in, so both round alike


def digits_network(model: str) -> tuple[nn.Module, dict[str, Tensor], list[Batch]]:
    config = tiny_config()
    data = load_data(config.dataset, DIGITS, "cpu")
    network = build_model(model, data.image_shape, data.num_classes)
    initialize(network, seed=3)
    return network, prunable_weights(network), list(scoring_batches(data, config.training.batch_size, 1, seed=0, round_=1))


def small_network(seed: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor], Masks]:
    """Weights, gradients with equal values among them, and masks of three layers."""
    draw = torch.Generator().manual_seed(seed)
    shapes = {"head": (3, 4), "conv": (2, 2, 3), "blocks": (5,)}
    weights = {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    grads = {name: torch.randint(-3, 4, shape, generator=draw) / 8 for name, shape in shapes.items()}
    masks = {name: torch.rand(shape, generator=draw) < 0.7 for name, shape in shapes.items()}
    return weights, grads, masks


def surviving(tensors: dict[str, Tensor], masks: Masks) -> Tensor:
    """The entries of the surviving weights, as a pruning round takes them."""
    return flattened(tensors, surviving_indices(masks, num_kept(masks)))


def terms_of_survivors(weights: dict[str, Tensor], grads: dict[str, Tensor], masks: Masks) -> dict[str, Tensor]:
    return drive_terms(surviving(weights, masks), surviving(grads, masks))


def arrays(tensors: dict[str, Tensor]) -> dict[str, Any]:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def kept_values(values: dict[str, Any], masks: Masks) -> Any:
    """The entries of the surviving weights layer by layer, by NumPy."""
    return np.concatenate([values[name][mask.numpy()] for name, mask in masks.items()])


@pytest.mark.parametrize("model", ["convnet", "resnet20"])
def test_connection_sensitivity_is_the_gradient_of_a_gate(model: str) -> None:
    network, weights, batches = digits_network(model)
    _, grads = scoring_gradients(network, weights, batches, GIVEN_ORDER)
    connection = drive_terms(flattened(weights), flattened(grads))["connection"]
    by_gates = reference.gate_gradients(network, list(weights), *batches[0])
    assert list(by_gates) == list(weights)
    layers = connection.split([weight.numel() for weight in weights.values()])
    for layer, gate in zip(layers, by_gates.values(), strict=True):
        torch.testing.assert_close(layer.view(gate.shape), gate.abs(), rtol=1e-6, atol=0.0)


@pytest.mark.parametrize(
    ("model", "normalize"), [("resnet20", "mean"), ("convnet", "sum"), ("convnet", "rank"), ("convnet", "none")]
)
def test_drive_1_0_0_is_magnitude_pruning(model: str, normalize: Normalize) -> None:
    network, weights, batches = digits_network(model)
    _, grads = scoring_gradients(network, weights, batches, GIVEN_ORDER)
    masks = full_masks(weights)
    config = DriveConfig(magnitude=1, connection=0, convergence=0, normalize=normalize)
    count = kept_count(0.95, num_kept(masks))
    kept = topk_masks(drive_score(terms_of_survivors(weights, grads, masks), config), masks, count)
    sizes = {name: weight.detach().abs() for name, weight in weights.items()}
    assert reference.positions(kept) == reference.kept_positions(sizes, masks, count)


@pytest.mark.parametrize("normalize", NORMALIZERS)
def test_drive_single_term_distinguishes_last_bits(
    normalize: Normalize,
) -> None:
    # 64 neighbours of 1.9; divided by their mean of 1.8, pairs of them would become equal.
    neighbours = 1.9 + torch.arange(64) * 2**-23
    weights_S = torch.cat([neighbours, torch.zeros(3)])
    assert len(set((weights_S / weights_S.mean()).tolist())) < 65
    masks = full_masks({"conv": weights_S})
    config = DriveConfig(magnitude=3, connection=0, convergence=0, normalize=normalize)
    for count in range(1, 64):
        kept = topk_masks(drive_score(drive_terms(weights_S, weights_S), config), masks, count)
        assert kept["conv"].nonzero().flatten().tolist() == list(range(64 - count, 64))


@pytest.mark.parametrize("normalize", NORMALIZERS)
def test_drive_0_1_0_is_snip(normalize: Normalize) -> None:
    network, weights, batches = digits_network("convnet")
    count = kept_count(0.95, 15_248)
    gates = {name: gate.abs() for name, gate in reference.gate_gradients(network, list(weights), *batches[0]).items()}
    expected = reference.kept_positions(gates, full_masks(weights), count)
    config = tiny_config(
        warmup_epochs=0,
        prune_iterations=1,
        sparsity=0.95,
        options=DriveConfig(magnitude=0, connection=1, convergence=0, normalize=normalize),
    )
    data = load_data(config.dataset, DIGITS, "cpu")
    masks, *_ = prune_round(network, weights, full_masks(weights), data, config, 1, GIVEN_ORDER)
    assert reference.positions(masks) == expected


@pytest.mark.parametrize("how", NORMALIZERS)
@pytest.mark.parametrize("factors", [(1.0, 1.0, 1.0), (0.5, 2.0, 0.0), (0.0, 1.0, 3.0)])
def test_drive_score_equals_the_naive_score(how: Normalize, factors: tuple[float, float, float]) -> None:
    for seed in range(5):
        weights, grads, masks = small_network(seed)
        config = DriveConfig(magnitude=factors[0], connection=factors[1], convergence=factors[2], normalize=how)
        score = drive_score(terms_of_survivors(weights, grads, masks), config)
        expected = reference.drive_score(arrays(weights), arrays(grads), arrays(masks), factors, how)
        assert (score.dtype, score.shape) == (torch.float32, (num_kept(masks),))
        np.testing.assert_allclose(score.numpy(), kept_values(expected, masks), rtol=2e-6, atol=1e-12)


@pytest.mark.parametrize("how", NORMALIZERS)
def test_drive_score_ignores_pruned_weights(how: Normalize) -> None:
    weights, grads, masks = small_network()
    spoilt = {name: grad.masked_fill(~masks[name], float("nan")) for name, grad in grads.items()}
    config = DriveConfig(normalize=how)
    clean = drive_score(terms_of_survivors(weights, grads, masks), config)
    score = drive_score(terms_of_survivors(weights, spoilt, masks), config)
    assert any(grad.isnan().any() for grad in spoilt.values())
    assert torch.equal(score, clean)


@pytest.mark.parametrize("how", NORMALIZERS)
@pytest.mark.parametrize("factors", [(2.0, 2.0, 2.0), (0.0, 1.0, 3.0), (0.0, 0.0, 2.0)])
def test_drive_score_does_not_change_its_inputs(how: Normalize, factors: tuple[float, float, float]) -> None:
    weights, grads, masks = small_network()
    weights_S, grads_S = surviving(weights, masks), surviving(grads, masks)
    before = weights_S.clone(), grads_S.clone()
    terms = drive_terms(weights_S, grads_S)
    copies = {name: term.clone() for name, term in terms.items()}
    drive_score(terms, DriveConfig(magnitude=factors[0], connection=factors[1], convergence=factors[2], normalize=how))
    assert torch.equal(weights_S, before[0])
    assert torch.equal(grads_S, before[1])
    assert all(torch.equal(term, copies[name]) for name, term in terms.items())


@pytest.mark.parametrize("how", ["mean", "sum", "none"])
def test_drive_score_keeps_zero_terms(how: Normalize) -> None:
    assert torch.equal(normalized(torch.zeros(4), how), torch.zeros(4))


def test_normalized_ranks_share_the_mean_of_ties() -> None:
    assert torch.equal(normalized(torch.zeros(4), "rank"), torch.full((4,), 2.5 / 4))


def test_normalized_accepts_no_surviving_weights() -> None:
    nothing = surviving({"conv": torch.ones(3)}, {"conv": torch.zeros(3, dtype=torch.bool)})
    for how in NORMALIZERS:
        assert normalized(nothing, how).tolist() == []
        assert drive_score(drive_terms(nothing, nothing), DriveConfig(normalize=how)).tolist() == []


def test_average_ranks_share_the_mean_of_ties() -> None:
    assert average_ranks(torch.tensor([0.5, 0.1, 0.5, 0.7, 0.5])).tolist() == [3.0, 1.0, 3.0, 5.0, 3.0]


def test_average_ranks_equal_those_of_scipy() -> None:
    draw = np.random.default_rng(0)
    for size in (1, 2, 17, 200):
        values = draw.integers(0, max(size // 3, 1), size)
        assert average_ranks(torch.tensor(values)).tolist() == stats.rankdata(values, method="average").tolist()


def test_rank_correlation_is_that_of_spearman() -> None:
    draw = np.random.default_rng(1)
    for size, distinct in itertools.product((5, 50), (3, 1000)):
        first, second = draw.integers(0, distinct, size), draw.integers(0, distinct, size)
        ours = rank_correlation(torch.tensor(first), torch.tensor(second))
        assert math.isclose(ours, float(stats.spearmanr(first, second).statistic), abs_tol=1e-12)
        assert math.isclose(ours, reference.spearman(first.tolist(), second.tolist()), abs_tol=1e-12)


def test_rank_correlation_of_a_constant_is_nan() -> None:
    assert math.isnan(rank_correlation(torch.ones(4), torch.arange(4)))


def test_term_correlations_use_surviving_weights() -> None:
    weights, grads, masks = small_network()
    terms = terms_of_survivors(weights, grads, masks)
    score = drive_score(terms, DriveConfig())
    w, g = kept_values(arrays(weights), masks), kept_values(arrays(grads), masks)
    raw = {"magnitude": np.abs(w), "connection": np.abs(w * g), "convergence": np.abs(g)}

    ours = term_correlations(score, terms, seed=0)
    assert list(ours) == ["magnitude", "connection", "convergence"]
    for name, correlation in ours.items():
        expected = float(stats.spearmanr(score.numpy(), raw[name]).statistic)
        assert math.isclose(correlation, expected, abs_tol=1e-12)


def test_term_correlations_use_a_seeded_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, grads, masks = small_network()
    terms = terms_of_survivors(weights, grads, masks)
    score = drive_score(terms, DriveConfig())
    every = term_correlations(score, terms, seed=0)
    sizes: list[int] = []
    monkeypatch.setattr(rank_correlation_module, "CORRELATION_SAMPLE", num_kept(masks) - 5)
    real = rank_correlation_module.rank_correlation

    def recorded(first: Tensor, second: Tensor) -> float:
        sizes.append(len(first))
        return real(first, second)

    monkeypatch.setattr(rank_correlation_module, "rank_correlation", recorded)
    sampled = term_correlations(score, terms, seed=0)
    assert sizes == [num_kept(masks) - 5] * 3
    assert sampled != every
    assert sampled == term_correlations(score, terms, seed=0)
    assert sampled != term_correlations(score, terms, seed=1)
    # Score and term are drawn at the same weights.
    assert term_correlations(terms["connection"], terms, seed=0)["connection"] == pytest.approx(1.0, abs=1e-12)


def test_correlation_sample_is_fifty_thousand() -> None:
    assert rank_correlation_module.CORRELATION_SAMPLE == 50_000


@pytest.mark.parametrize("rounds", [1, 2, 9, 10, 11, 50, 100, 101])
def test_correlation_rounds_are_at_most_ten(rounds: int) -> None:
    selected = correlation_rounds(rounds)
    assert len(selected) == min(rounds, 10)
    assert {1, rounds} <= selected <= set(range(1, rounds + 1))
