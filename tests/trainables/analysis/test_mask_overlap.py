"""Likeness of masks against closed forms and hand counts."""

from __future__ import annotations

import pytest
import torch

from tests.support.trials import new_storage, run, tiny_config, trial_folder
from trainables.analysis.mask_overlap import early_pruning_indicator, mask_distance, overlap, width_similarity
from trainables.export.sparse_model import load_masks, load_sparse_model
from trainables.pruning.masks import Masks
from trainables.pruning.sparsity_distributions import random_masks


def masks(*layers: list[int]) -> Masks:
    return {str(index): torch.tensor(layer, dtype=torch.bool) for index, layer in enumerate(layers)}


def with_counts(*counts: int) -> Masks:
    return masks(*([1] * count + [0] * (100 - count) for count in counts))


@pytest.mark.parametrize("density", [0.5, 0.1, 0.05])
def test_random_masks_are_as_far_apart_as_chance_says(density: float) -> None:
    weights = {"one": torch.zeros(300, 300), "two": torch.zeros(10_000)}
    counts = {name: round(density * weight.numel()) for name, weight in weights.items()}
    first, second = (random_masks(weights, counts, seed) for seed in (0, 1))
    # 100,000 weights: five standard deviations are below 0.008.
    assert mask_distance(first, second) == pytest.approx(2 * density * (1 - density), abs=0.008)
    assert overlap(first, second) == pytest.approx(density / (2 - density), abs=0.008)
    assert width_similarity(first, second) == 1.0


def test_hand_counts() -> None:
    first, second = masks([1, 1, 0, 0], [1, 0]), masks([0, 1, 1, 0], [1, 1])
    assert overlap(first, second) == 2 / 5
    assert mask_distance(first, second) == 3 / 6
    assert width_similarity(first, second) == pytest.approx(1 - (0 / 4 + 1 / 3) / 2)


def test_a_mask_is_like_itself_and_nothing_like_its_opposite() -> None:
    first = masks([1, 1, 0, 0], [1, 0])
    opposite = {name: ~mask for name, mask in first.items()}
    assert (overlap(first, first), mask_distance(first, first), width_similarity(first, first)) == (1.0, 0.0, 1.0)
    assert (overlap(first, opposite), mask_distance(first, opposite)) == (0.0, 1.0)
    nothing = masks([0, 0, 0, 0], [0, 0])
    assert (overlap(nothing, nothing), width_similarity(nothing, nothing)) == (1.0, 1.0)


def test_the_indicator_is_the_mean_over_the_masks_before() -> None:
    history = [with_counts(10, 90), with_counts(50, 50), with_counts(50, 30)]
    to_second = 1 - (0 / 100 + 20 / 80) / 2
    to_first = 1 - (40 / 60 + 60 / 120) / 2
    assert early_pruning_indicator(history, last=1) == pytest.approx(to_second)
    assert early_pruning_indicator(history) == pytest.approx((to_first + to_second) / 2)


def test_the_indicator_sees_widths_and_not_which_weights() -> None:
    disjoint = [masks([1, 0]), masks([0, 1])]
    assert early_pruning_indicator(disjoint) == 1.0
    assert overlap(*disjoint) == 0.0


def test_the_masks_of_a_file_are_those_of_its_model(tmp_path_factory: pytest.TempPathFactory) -> None:
    for method in ("drive", "srste"):
        config, storage = tiny_config(method=method), new_storage(tmp_path_factory.mktemp("runs"))
        run(config, storage)
        content = trial_folder(config, storage).read("model.safetensors.zst")
        assert content is not None
        whole = load_sparse_model(content).masks
        alone = load_masks(content)
        assert list(alone) == list(whole)
        assert all(torch.equal(alone[name], whole[name]) for name in whole)
