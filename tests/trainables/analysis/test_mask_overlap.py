"""Overlap of masks against closed forms and counts by hand."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import cohen_kappa_score

from tests.support.trials import new_storage, run, tiny_config, trial_folder
from trainables.analysis.mask_overlap import corrected_overlap, early_pruning_indicator, layer_density_similarity, overlap
from trainables.export.sparse_model import load_masks, load_sparse_model
from trainables.pruning.masks import Masks
from trainables.pruning.sparsity_distributions import random_masks


def masks(*layers: list[int]) -> Masks:
    return {str(index): torch.tensor(layer, dtype=torch.bool) for index, layer in enumerate(layers)}


def with_counts(*counts: int) -> Masks:
    return masks(*([1] * count + [0] * (100 - count) for count in counts))


@pytest.mark.parametrize("density", [0.5, 0.1, 0.05])
def test_overlap_of_random_masks_is_that_of_chance(density: float) -> None:
    weights = {"one": torch.zeros(300, 300), "two": torch.zeros(10_000)}
    counts = {name: round(density * weight.numel()) for name, weight in weights.items()}
    first, second = (random_masks(weights, counts, seed) for seed in (0, 1))
    # 100,000 weights: five standard deviations are below 0.008.
    assert overlap(first, second) == pytest.approx(density / (2 - density), abs=0.008)
    assert layer_density_similarity(first, second) == 1.0


def test_overlap_and_similarity_match_counts_by_hand() -> None:
    first, second = masks([1, 1, 0, 0], [1, 0]), masks([0, 1, 1, 0], [1, 1])
    assert overlap(first, second) == 2 / 5
    assert layer_density_similarity(first, second) == pytest.approx(1 - (0 / 4 + 1 / 3) / 2)


def test_overlap_of_equal_and_opposite_masks() -> None:
    first = masks([1, 1, 0, 0], [1, 0])
    opposite = {name: ~mask for name, mask in first.items()}
    assert (overlap(first, first), layer_density_similarity(first, first)) == (1.0, 1.0)
    assert overlap(first, opposite) == 0.0
    nothing = masks([0, 0, 0, 0], [0, 0])
    assert (overlap(nothing, nothing), layer_density_similarity(nothing, nothing)) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("first", "second", "similarity"), [((10, 30), (30, 10), 0.5), ((8, 24), (16, 24), 5 / 6), ((1,), (16,), 2 / 17)]
)
def test_similarity_of_worked_examples(first: tuple[int, ...], second: tuple[int, ...], similarity: float) -> None:
    assert layer_density_similarity(with_counts(*first), with_counts(*second)) == pytest.approx(similarity)


def test_corrected_overlap_of_one_layer_is_cohens_kappa() -> None:
    generator = torch.Generator().manual_seed(0)
    for density in (0.5, 0.2, 0.05):
        first = torch.rand(1000, generator=generator) < density
        second = first ^ (torch.rand(1000, generator=generator) < 0.1)
        expected = cohen_kappa_score(first.numpy(), second.numpy())
        assert corrected_overlap({"one": first}, {"one": second}) == pytest.approx(expected)


def test_corrected_overlap_is_zero_by_chance() -> None:
    weights = {"dense": torch.zeros(300, 300), "sparse": torch.zeros(100_000)}
    counts = {"dense": 80_000, "sparse": 1000}
    first, second = (random_masks(weights, counts, seed) for seed in (0, 1))
    assert overlap(first, second) > 0.7  # which the dense layer alone brings about
    assert corrected_overlap(first, second) == pytest.approx(0, abs=0.02)
    assert corrected_overlap(first, first) == 1.0


def test_corrected_overlap_is_one_where_nothing_can_differ() -> None:
    assert corrected_overlap(masks([1, 1], [0, 0]), masks([1, 1], [0, 0])) == 1.0


@pytest.mark.parametrize(
    ("first", "second", "similarity"),
    [
        ((16, 32, 64), (16, 32, 64), 1.0),
        ((10, 30), (30, 10), 0.5),
        ((8, 24), (16, 24), 5 / 6),
        ((1,), (16,), 2 / 17),
        ((0, 4), (0, 4), 1.0),
        ((0,), (3,), 0.0),
    ],
)
def test_similarity_of_densities_has_its_closed_values(
    first: tuple[int, ...], second: tuple[int, ...], similarity: float
) -> None:
    assert layer_density_similarity(with_counts(*first), with_counts(*second)) == pytest.approx(similarity)
    assert layer_density_similarity(with_counts(*second), with_counts(*first)) == pytest.approx(similarity)


def test_indicator_is_the_mean_over_earlier_masks() -> None:
    history = [with_counts(10, 90), with_counts(50, 50), with_counts(50, 30)]
    to_second = 1 - (0 / 100 + 20 / 80) / 2
    to_first = 1 - (40 / 60 + 60 / 120) / 2
    assert early_pruning_indicator(history, last=1) == pytest.approx(to_second)
    assert early_pruning_indicator(history) == pytest.approx((to_first + to_second) / 2)


def test_indicator_depends_on_densities_alone() -> None:
    disjoint = [masks([1, 0]), masks([0, 1])]
    assert early_pruning_indicator(disjoint) == 1.0
    assert overlap(*disjoint) == 0.0


def test_load_masks_gives_the_masks_of_the_model(tmp_path_factory: pytest.TempPathFactory) -> None:
    for method in ("drive", "srste"):
        config, storage = tiny_config(method=method), new_storage(tmp_path_factory.mktemp("runs"))
        run(config, storage)
        content = trial_folder(config, storage).read("model.safetensors.zst")
        assert content is not None
        whole = load_sparse_model(content).masks
        alone = load_masks(content)
        assert list(alone) == list(whole)
        assert all(torch.equal(alone[name], whole[name]) for name in whole)
