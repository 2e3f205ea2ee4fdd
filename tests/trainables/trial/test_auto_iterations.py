"""Automatic iterations: doubled until twice as many hardly change the mask, then exactly the trial with that number."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.trials import DIGITS, RUNTIME, metric_points, new_storage, run, stop_at, tiny_config
from trainables.analysis.mask_overlap import corrected_overlap
from trainables.config.methods import DriveConfig
from trainables.config.trial import IterationsConfig, TrialConfig
from trainables.data.splits import load_data
from trainables.models.prunable import prunable_weights
from trainables.models.registry import initialized_network
from trainables.pruning.masks import Masks, full_masks
from trainables.pruning.rounds import prune_round
from trainables.trial.auto_iterations import choose_iterations

ONLY_MAGNITUDE = DriveConfig(connection=0.0, convergence=0.0)


def auto(threshold: float, most: int = 16) -> TrialConfig:
    return tiny_config(prune_iterations=most, iterations=IterationsConfig(auto=True, threshold=threshold))


def masks_after(rounds: int) -> Masks:
    """By the rounds alone, on a new network."""
    config = tiny_config(prune_iterations=rounds)
    data = load_data(config.dataset, DIGITS, "cpu")
    model = RUNTIME.to_device(initialized_network(config, data.image_shape, data.num_classes))
    weights = prunable_weights(model)
    masks = full_masks(weights)
    for round_ in range(1, rounds + 1):
        masks, _, _ = prune_round(model, weights, masks, data, config, round_, RUNTIME)
    return masks


def test_agreement_is_that_of_the_masks_of_n_and_2n_iterations() -> None:
    config = auto(threshold=2.0)
    data = load_data(config.dataset, DIGITS, "cpu")
    model = RUNTIME.to_device(initialized_network(config, data.image_shape, data.num_classes))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    chosen = choose_iterations(model, data, config, RUNTIME)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert chosen.agreement == {n: corrected_overlap(masks_after(n), masks_after(2 * n)) for n in (1, 2, 4, 8)}
    assert chosen.choice.value == 16
    expected = "twice as many change the mask up to the most iterations allowed, 16: overlap of the weights that 8 and 16"
    assert chosen.choice.reason.startswith(expected)


@pytest.mark.parametrize(("most", "tried"), [(2, [1]), (3, [1]), (4, [1, 2]), (100, [1, 2, 4, 8, 16, 32])])
def test_no_more_than_the_most_iterations_are_tried(most: int, tried: list[int]) -> None:
    config = auto(threshold=2.0, most=most)
    data = load_data(config.dataset, DIGITS, "cpu")
    model = RUNTIME.to_device(initialized_network(config, data.image_shape, data.num_classes))
    chosen = choose_iterations(model, data, config, RUNTIME)
    assert (list(chosen.agreement), chosen.choice.value) == (tried, 2 * tried[-1])


def test_one_iteration_is_enough_where_the_score_does_not_change(tmp_path: Path) -> None:
    config = tiny_config(prune_iterations=16, iterations=IterationsConfig(auto=True, threshold=1.0), options=ONLY_MAGNITUDE)
    choice = run(config, new_storage(tmp_path))["choices"]["prune_iterations"]
    reason = "twice as many hardly change the mask: overlap of the weights that 1 and 2 iterations keep 1.000, threshold 1"
    assert choice == {"value": 1, "reason": reason}


def test_trial_gives_the_model_and_points_of_the_number_it_chose(tmp_path: Path) -> None:
    config, storage = auto(threshold=0.38), new_storage(tmp_path / "auto")
    result = run(config, storage)
    number = result["choices"]["prune_iterations"]["value"]
    assert number < 16
    fixed, other = tiny_config(prune_iterations=number), new_storage(tmp_path / "fixed")
    assert run(fixed, other)["model_sha256"] == result["model_sha256"]
    points, expected = metric_points(config, storage), metric_points(fixed, other)
    expected.pop(("model/bytes", 4))  # the file holds the configuration
    assert {place: points[place] for place in expected} == expected
    assert points["prune/chosen_iterations", number] == number
    assert [step for key, step in points if key == "prune/agreement_with_double"] == [
        2**index for index in range(number.bit_length())
    ]


def test_stopped_while_pruning_goes_on_with_the_chosen_number(tmp_path: Path) -> None:
    config, storage = auto(threshold=0.38), new_storage(tmp_path / "stopped")
    expected = run(config, new_storage(tmp_path / "whole"))
    stop_at(config, storage, lambda state: state.phase == "prune" and state.position == 1)
    result = run(config, storage, 2)
    assert (result["model_sha256"], result["choices"]) == (expected["model_sha256"], expected["choices"])
