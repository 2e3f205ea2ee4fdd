"""Each sanity check changes what it says and nothing else, at the moment when a mask is handed to training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.trials import new_storage, run, selection_for, tiny_config, trial_context, trial_folder
from trainables.config.counts import kept_count
from trainables.config.methods import METHODS, ImpConfig, RandomConfig
from trainables.config.trial import SanityConfig, TrialConfig
from trainables.models.registry import build_model, initialize
from trainables.pruning.masks import Masks, num_kept
from trainables.pruning.sanity_checks import shuffled
from trainables.runtime.seeding import derived_seed
from trainables.trial.checkpoint import TrialState
from trainables.trial.runner import TrialRunner

OF_LAYERS = ("conv1.weight", "conv2.weight", "conv3.weight", "head.weight")


def handed_over(config: TrialConfig, folder: Path) -> TrialState:
    """The state in which sparse training begins, computed by a trial's own phases."""
    storage = new_storage(folder)
    trial_folder(config, storage).claim_attempt()
    trial = TrialRunner(config, trial_context(config, storage))
    state = trial._start_pruning()
    while state.phase == "prune":
        trial._prune_one_round(state)
    while state.phase == "level":
        trial._train_one_level_epoch(state)
    return state


def warmed_up(config: TrialConfig, folder: Path) -> dict[str, Tensor]:
    trial_folder(config, new_storage(folder)).claim_attempt()
    trial = TrialRunner(config, trial_context(config, new_storage(folder)))
    return trial.warmup.state_at(config.warmup_epochs).model.state_dict()


def under(weights: dict[str, Tensor], masks: Masks) -> dict[str, Tensor]:
    return {name: tensor * masks[name] if name in masks else tensor for name, tensor in weights.items()}


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("method", [name for name, one in METHODS.items() if one.course.ends_before_training])
def test_shuffled_masks_keep_the_counts_of_layers(method: Any, tmp_path: Path) -> None:
    config = tiny_config(method=method, sparsity=0.8, options=ImpConfig(fraction=0.6))
    plain = handed_over(config, tmp_path / "plain")
    checked = handed_over(tiny_config(**of(config), sanity=SanityConfig(shuffle=True)), tmp_path / "shuffled")
    for name in OF_LAYERS:
        assert int(checked.masks[name].sum()) == int(plain.masks[name].sum())
        if 0 < int(plain.masks[name].sum()) < plain.masks[name].numel():
            assert not torch.equal(checked.masks[name], plain.masks[name])
    # The weights are those of the warm-up's end, of which other ones are kept.
    masks = selection_for(config, checked.model).with_other_tensors(checked.masks, checked.model)
    assert same(checked.model.state_dict(), under(warmed_up(config, tmp_path / "plain"), masks))


def of(config: TrialConfig) -> dict[str, Any]:
    return {"method": config.method, "sparsity": config.sparsity, "options": config.options}


def test_shuffled_masks_differ_by_seed_and_layer() -> None:
    mask = torch.arange(10_000).view(100, 100) < 3000
    first, again, other = (shuffled({"a": mask, "b": mask}, seed) for seed in (0, 0, 1))
    assert same(first, again)
    # Independent masks of density 0.3 agree where both keep or both prune: 0.58 of all, within 5 standard deviations.
    for one, two in ((first["a"], first["b"]), (first["a"], other["a"]), (first["a"], mask)):
        assert float((one == two).double().mean()) == pytest.approx(0.58, abs=0.025)


@pytest.mark.parametrize("method", ["drive", "magnitude", "imp"])
def test_reinitialized_weights_have_the_same_mask(method: Any, tmp_path: Path) -> None:
    config = tiny_config(method=method, sparsity=0.8, options=ImpConfig(fraction=0.6))
    plain = handed_over(config, tmp_path / "plain")
    checked = handed_over(tiny_config(**of(config), sanity=SanityConfig(reinitialize=True)), tmp_path / "new")
    assert same(checked.masks, plain.masks)
    fresh = build_model("convnet", (1, 8, 8), 10)
    initialize(fresh, derived_seed(config.seed, "reinitialize"))
    assert same(checked.model.state_dict(), under(fresh.state_dict(), plain.masks))
    first = build_model("convnet", (1, 8, 8), 10)
    initialize(first, config.seed)
    assert not torch.equal(fresh.state_dict()["conv3.weight"], first.state_dict()["conv3.weight"])


def test_inverted_scores_keep_the_smallest_weights(tmp_path: Path) -> None:
    config = tiny_config(method="magnitude", sanity=SanityConfig(invert=True))
    weights = warmed_up(config, tmp_path)
    state = handed_over(config, tmp_path)
    sizes = torch.cat([weights[name].abs().flatten() for name in OF_LAYERS])
    threshold = sizes.sort().values[kept_count(0.9, 15_248) - 1]
    assert same(state.masks, {name: weights[name].abs() <= threshold for name in OF_LAYERS})
    assert same(state.model.state_dict(), under(weights, state.masks))


@pytest.mark.parametrize("method", ["drive", "snip", "grasp", "synflow", "imp"])
def test_inverted_scores_keep_as_many_other_weights(method: Any, tmp_path: Path) -> None:
    config = tiny_config(method=method, sparsity=0.8, options=ImpConfig(fraction=0.6))
    plain = handed_over(config, tmp_path / "plain")
    checked = handed_over(tiny_config(**of(config), sanity=SanityConfig(invert=True)), tmp_path / "inverted")
    assert num_kept(checked.masks) == num_kept(plain.masks)
    both = sum(int((checked.masks[name] & plain.masks[name]).sum()) for name in OF_LAYERS)
    # One shot would keep no weight of the other's 20 %; rounds part ways, but far from what chance would share.
    assert both < 0.2 * num_kept(plain.masks)


def test_random_masks_use_layer_counts_of_another_trial(tmp_path: Path) -> None:
    storage = new_storage(tmp_path)
    drive = run(tiny_config(), storage)
    by_layer = {layer["name"]: layer["kept"] for layer in drive["layers"]}
    config = tiny_config(method="random", options=RandomConfig(layers="0123456789abcdef"))
    asked = []

    def counts_of(key: str) -> dict[str, int]:
        asked.append(key)
        return by_layer

    result = run(config, storage, counts_of=counts_of)
    assert asked == ["0123456789abcdef"]
    assert {layer["name"]: layer["kept"] for layer in result["layers"]} == by_layer
    assert result["mask_sha256"] != drive["mask_sha256"]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (None, "has no result in this storage; run it first"),
        ({"conv1.weight": 1525}, "has another network; its layers are conv1.weight"),
        (dict.fromkeys(OF_LAYERS, 100), "keeps 400 weights, this sparsity 1525; use its sparsity"),
    ],
)
def test_counts_of_a_different_trial_are_rejected(counts: Any, expected: str, tmp_path: Path) -> None:
    config = tiny_config(method="random", options=RandomConfig(layers="0123456789abcdef"))
    with pytest.raises(Exception, match=expected):
        run(config, new_storage(tmp_path), counts_of=lambda key: counts)
