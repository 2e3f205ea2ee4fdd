"""Selection of the highest scores: exact counts, ties, survivors, scores that are not numbers."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from tests.support import oracles as reference
from trainables.errors import NonFiniteError
from trainables.pruning.masks import (
    Masks,
    apply_masks,
    collapsed_layers,
    flattened,
    full_masks,
    num_kept,
    surviving_indices,
    topk_masks,
)


def random_networks(count: int, distinct: int) -> list[tuple[dict[str, Tensor], Masks]]:
    """Scores with few distinct values, so with many ties, and masks that have lost some weights; layer names unsorted."""
    draw = random.Random(0)
    networks = []
    for _ in range(count):
        shapes = {name: (draw.randint(1, 4), draw.randint(1, 5)) for name in ("head", "conv", "blocks")[: draw.randint(1, 3)]}
        scores = {
            name: torch.tensor([[draw.randrange(distinct) / 4 for _ in range(columns)] for _ in range(rows)])
            for name, (rows, columns) in shapes.items()
        }
        masks = {
            name: torch.tensor([[draw.random() < 0.7 for _ in range(columns)] for _ in range(rows)])
            for name, (rows, columns) in shapes.items()
        }
        networks.append((scores, masks))
    return networks


def of_survivors(values: dict[str, Tensor], masks: Masks) -> Tensor:
    """The values of the kept weights in the order of the masks, one by one."""
    kept = []
    for name, mask in masks.items():
        pairs = zip(values[name].flatten().tolist(), mask.flatten().tolist(), strict=True)
        kept += [value for value, is_kept in pairs if is_kept]
    return torch.tensor(kept)


def test_topk_masks_agree_with_plain_sorting() -> None:
    for scores, masks in random_networks(60, distinct=4):
        for count in range(num_kept(masks) + 1):
            kept = topk_masks(of_survivors(scores, masks), masks, count)
            assert list(kept) == list(masks)
            assert reference.positions(kept) == reference.kept_positions(scores, masks, count)


def test_topk_masks_break_ties_by_the_order_of_masks() -> None:
    decided = 0
    for scores, masks in random_networks(30, distinct=4):
        count = num_kept(masks) // 2
        backwards = dict(reversed(list(masks.items())))
        scores_backwards = {name: scores[name] for name in backwards}
        kept = topk_masks(of_survivors(scores, backwards), backwards, count)
        assert list(kept) == list(backwards)
        assert reference.positions(kept) == reference.kept_positions(scores_backwards, backwards, count)
        decided += reference.positions(kept) != reference.kept_positions(scores, masks, count)
    assert decided > 5


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 8])
def test_topk_masks_keep_the_first_of_equal_scores(count: int) -> None:
    masks = full_masks({"conv": torch.zeros(2, 2), "head": torch.zeros(4)})
    kept = topk_masks(torch.full((8,), 0.5), masks, count)
    assert torch.cat([kept["conv"].flatten(), kept["head"]]).tolist() == [True] * count + [False] * (8 - count)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5])
def test_topk_masks_keep_the_first_surviving_of_equal_scores(count: int) -> None:
    masks = {"conv": torch.tensor([[False, True], [True, False]]), "head": torch.tensor([True, False, True, True])}
    kept = topk_masks(torch.full((5,), 0.5), masks, count)
    flat = [*kept["conv"].flatten().tolist(), *kept["head"].tolist()]
    assert [i for i, is_kept in enumerate(flat) if is_kept] == [1, 2, 4, 6, 7][:count]


def test_topk_masks_never_revive_a_pruned_weight() -> None:
    scores = {"conv": torch.tensor([9.0, 1.0, 2.0]), "head": torch.tensor([3.0, 9.0])}
    masks = {"conv": torch.tensor([False, True, True]), "head": torch.tensor([True, False])}
    for count, expected in ((3, [False, True, True, True, False]), (2, [False, False, True, True, False])):
        kept = topk_masks(flattened(scores, surviving_indices(masks, 3)), masks, count)
        assert [*kept["conv"].tolist(), *kept["head"].tolist()] == expected


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_topk_masks_reject_non_finite_scores_of_kept_weights(bad: float) -> None:
    scores = {"conv": torch.tensor([bad, 1.0, 2.0])}
    with pytest.raises(NonFiniteError, match="1 scores of surviving weights are not finite"):
        topk_masks(flattened(scores), {"conv": torch.tensor([True, True, True])}, 1)
    masks = {"conv": torch.tensor([False, True, True])}
    assert topk_masks(flattened(scores, surviving_indices(masks, 2)), masks, 1)["conv"].tolist() == [False, False, True]


def test_topk_masks_reject_infinities_of_both_signs() -> None:
    scores = torch.tensor([float("inf"), 1.0, -float("inf")])
    with pytest.raises(NonFiniteError, match="2 scores of surviving weights are not finite"):
        topk_masks(scores, {"conv": torch.ones(3, dtype=torch.bool)}, 1)


def test_topk_masks_accept_scores_with_overflowing_sum() -> None:
    scores = torch.tensor([2e38, 3e38, 1e38])
    assert scores.sum() == float("inf")
    assert topk_masks(scores, {"conv": torch.ones(3, dtype=torch.bool)}, 1)["conv"].tolist() == [False, True, False]


def test_topk_masks_accept_no_surviving_weights() -> None:
    none = {"conv": torch.zeros(3, dtype=torch.bool)}
    scores_S = flattened({"conv": torch.ones(3)}, surviving_indices(none, 0))
    assert num_kept(topk_masks(scores_S, none, 0)) == 0
    with pytest.raises(AssertionError, match="1 of 0 surviving weights"):
        topk_masks(scores_S, none, 1)


def test_surviving_indices_are_layer_by_layer() -> None:
    for values, masks in random_networks(60, distinct=4):
        kept = [is_kept for mask in masks.values() for is_kept in mask.flatten().tolist()]
        positions = surviving_indices(masks, sum(kept))
        if all(kept):
            assert positions is None
        else:
            assert positions is not None
            assert positions.dtype == torch.int64
            assert positions.tolist() == [i for i, is_kept in enumerate(kept) if is_kept]
        assert flattened(values, positions).tolist() == of_survivors(values, masks).tolist()


def test_surviving_indices_of_full_masks_are_none() -> None:
    weights = {"conv": torch.tensor([[4.0, 5.0], [6.0, 7.0]]), "head": torch.tensor([1.0])}
    assert surviving_indices(full_masks(weights), 5) is None
    assert flattened(weights, None).tolist() == [4.0, 5.0, 6.0, 7.0, 1.0]


def channels_last(values: list[float], *shape: int) -> Tensor:
    """A tensor whose entries in logical order are `values`, but not in memory."""
    tensor = torch.tensor(values).view(shape).contiguous(memory_format=torch.channels_last)
    assert not tensor.is_contiguous()
    return tensor


def test_surviving_indices_ignore_the_memory_order() -> None:
    values = [float(i) for i in range(24)]
    weight = torch.nn.Parameter(channels_last(values, 2, 3, 2, 2))
    mask = channels_last([i % 5 == 1 for i in range(24)], 2, 3, 2, 2)
    weights, masks = {"conv": weight, "head": torch.tensor([30.0, 31.0])}, {"conv": mask, "head": torch.tensor([False, True])}
    assert flattened(weights).tolist() == [*values, 30.0, 31.0]
    assert not flattened(weights).requires_grad
    positions = surviving_indices(masks, 6)
    assert positions is not None
    assert positions.tolist() == [1, 6, 11, 16, 21, 25]
    assert flattened(weights, positions).tolist() == [1.0, 6.0, 11.0, 16.0, 21.0, 31.0]
    kept = topk_masks(flattened(weights, positions), masks, 3)
    assert reference.positions(kept) == {("conv", 16), ("conv", 21), ("head", 1)}


def test_apply_masks_ignores_the_memory_order() -> None:
    weight = channels_last([float(i + 1) for i in range(24)], 2, 3, 2, 2)
    kept = [i % 5 == 1 for i in range(24)]
    apply_masks({"conv": weight}, {"conv": torch.tensor(kept).view(2, 3, 2, 2)})
    assert weight.flatten().tolist() == [i + 1 if is_kept else 0 for i, is_kept in enumerate(kept)]


def test_collapsed_layers_are_named() -> None:
    masks = {"conv": torch.tensor([True, False]), "head": torch.tensor([False, False])}
    assert collapsed_layers(masks) == ["head"]


def test_apply_masks_zeroes_only_pruned_weights() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0, float("nan"), -3.0]))
    apply_masks({"conv": weight}, {"conv": torch.tensor([True, False, True])})
    assert weight.tolist() == [1.0, 0.0, -3.0]


def test_full_masks_keep_every_weight() -> None:
    assert num_kept(full_masks({"conv": torch.zeros(2, 3), "head": torch.zeros(4)})) == 10
