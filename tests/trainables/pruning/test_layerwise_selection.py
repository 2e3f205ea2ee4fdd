"""Shares of layers that scores do not decide, against sorting each layer by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.support.trials import new_storage, run, tiny_config
from trainables.config.counts import kept_count
from trainables.pruning.masks import Masks, num_kept
from trainables.pruning.selection import LayerwiseSelection
from trainables.pruning.sparsity_distributions import erk

SHAPES = {"first": (16, 1, 3, 3), "middle": (32, 16, 3, 3), "last": (10, 128)}
SIZE = 144 + 4608 + 1280


def full() -> Masks:
    return {name: torch.ones(shape, dtype=torch.bool) for name, shape in SHAPES.items()}


def scores(seed: int = 0) -> torch.Tensor:
    return torch.rand(SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_highest_scores_of_each_layer_are_kept() -> None:
    config = tiny_config(sparsity=0.9, prune_iterations=1, layer_sparsity="uniform")
    masks = LayerwiseSelection("uniform").select(scores(), full(), config, 1)
    assert num_kept(masks) == kept_count(0.9, SIZE)
    for (name, mask), values in zip(masks.items(), scores().split([144, 4608, 1280]), strict=True):
        kept = int(mask.sum())
        assert kept == pytest.approx(mask.numel() * 0.1, abs=1)
        threshold = values.sort(descending=True).values[kept - 1]
        assert torch.equal(mask.flatten(), values >= threshold), name


def test_shares_are_those_of_erdos_renyi_kernel() -> None:
    config = tiny_config(sparsity=0.9, prune_iterations=1, layer_sparsity="erk")
    masks = LayerwiseSelection("erk").select(scores(), full(), config, 1)
    densities = erk(SHAPES, kept_count(0.9, SIZE) / SIZE)
    assert num_kept(masks) == kept_count(0.9, SIZE)
    for name, mask in masks.items():
        assert float(mask.sum()) == pytest.approx(densities[name] * mask.numel(), abs=1)


@given(
    sparsity=st.floats(0.0, 0.999),
    iterations=st.integers(1, 12),
    layers=st.sampled_from(["uniform", "erk"]),
    seed=st.integers(0, 5),
)
def test_masks_of_all_rounds_shrink_to_the_exact_count(sparsity: float, iterations: int, layers: Any, seed: int) -> None:
    config = tiny_config(sparsity=sparsity, prune_iterations=iterations, layer_sparsity=layers)
    selection, masks = LayerwiseSelection(layers), full()
    for round_ in range(1, iterations + 1):
        after = selection.select(scores(seed + round_)[: num_kept(masks)], masks, config, round_)
        assert num_kept(after) == selection.keep(masks, config, round_)
        assert not any(bool((after[name] & ~masks[name]).any()) for name in masks)
        masks = after
    assert num_kept(masks) == kept_count(sparsity, SIZE)


def test_what_a_layer_no_longer_has_goes_to_others() -> None:
    selection = LayerwiseSelection("uniform")
    assert selection.counts(full(), {"first": 144, "middle": 4608, "last": 1280}, 603) == {
        "first": 14,
        "middle": 461,
        "last": 128,
    }
    left = selection.counts(full(), {"first": 13, "middle": 461, "last": 1280}, 603)
    assert left == {"first": 13, "middle": 461, "last": 129}


@pytest.mark.parametrize("method", ["drive", "magnitude", "synflow", "imp"])
def test_trials_of_all_methods_keep_the_shares(method: str, tmp_path: Path) -> None:
    config = replace(tiny_config(method=method, sparsity=0.6), layer_sparsity="uniform")
    result = run(config, new_storage(tmp_path))
    assert result["kept_weights"] == kept_count(0.6, 15_248)
    for layer in result["layers"]:
        size = layer["kept"] / layer["density"]
        assert layer["kept"] == pytest.approx(0.4 * size, abs=1)
