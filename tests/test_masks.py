"""Selection of the highest scores: exact counts, ties, survivors, scores that are not numbers."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from tests import reference
from trainables.failures import NonFiniteError
from trainables.masks import Masks, apply_masks, emptied_layers, full_masks, keep_highest, num_kept


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


def test_agrees_with_plain_sorting_on_many_small_networks() -> None:
    for scores, masks in random_networks(60, distinct=4):
        for count in range(num_kept(masks) + 1):
            kept = keep_highest(scores, masks, count)
            assert reference.positions(kept) == reference.kept_positions(scores, masks, count)


def test_masks_in_another_order_than_the_scores_give_the_same_result() -> None:
    for scores, masks in random_networks(30, distinct=4):
        count = num_kept(masks) // 2
        shuffled = dict(reversed(list(masks.items())))
        kept = keep_highest(scores, shuffled, count)
        assert reference.positions(kept) == reference.kept_positions(scores, masks, count)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 8])
def test_equal_scores_keep_exactly_the_earliest_weights(count: int) -> None:
    scores = {"conv": torch.full((2, 2), 0.5), "head": torch.full((4,), 0.5)}
    kept = keep_highest(scores, full_masks(scores), count)
    assert torch.cat([kept["conv"].flatten(), kept["head"]]).tolist() == [True] * count + [False] * (8 - count)


def test_a_pruned_weight_never_comes_back() -> None:
    scores = {"conv": torch.tensor([9.0, 1.0, 2.0])}
    kept = keep_highest(scores, {"conv": torch.tensor([False, True, True])}, 2)
    assert kept["conv"].tolist() == [False, True, True]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_score_that_is_no_number_matters_only_where_the_weight_is_alive(bad: float) -> None:
    scores = {"conv": torch.tensor([bad, 1.0, 2.0])}
    with pytest.raises(NonFiniteError, match="1 scores of surviving weights are not finite"):
        keep_highest(scores, {"conv": torch.tensor([True, True, True])}, 1)
    assert keep_highest(scores, {"conv": torch.tensor([False, True, True])}, 1)["conv"].tolist() == [False, False, True]


def test_nothing_can_be_kept_of_nothing() -> None:
    scores = {"conv": torch.ones(3)}
    none = {"conv": torch.zeros(3, dtype=torch.bool)}
    assert num_kept(keep_highest(scores, none, 0)) == 0
    with pytest.raises(AssertionError, match="1 of 0 surviving weights"):
        keep_highest(scores, none, 1)


def test_emptied_layers_are_named() -> None:
    masks = {"conv": torch.tensor([True, False]), "head": torch.tensor([False, False])}
    assert emptied_layers(masks) == ["head"]


def test_applied_masks_zero_the_pruned_weights_and_nothing_else() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0, float("nan"), -3.0]))
    apply_masks({"conv": weight}, {"conv": torch.tensor([True, False, True])})
    assert weight.tolist() == [1.0, 0.0, -3.0]


def test_full_masks_keep_everything() -> None:
    assert num_kept(full_masks({"conv": torch.zeros(2, 3), "head": torch.zeros(4)})) == 10
