"""Overlap of masks against closed forms and counts by hand."""

from __future__ import annotations

import pytest
import torch

from tests.support.trials import new_storage, run, tiny_config, trial_folder
from trainables.analysis.mask_overlap import early_pruning_indicator, layer_density_similarity, overlap
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
