"""Numbers do not move unseen: figures of a fixed small problem, stored beside the NUMERICS they were computed under.

Everything runs in float64 and figures are compared with a tolerance, so they hold on any processor; masks and batches are
exact, and the test proves that no score near a threshold could fall on the other side by rounding.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.support.trials import DIGITS, RUNTIME, in_float64
from trainables.config.keys import NUMERICS
from trainables.config.methods import DriveConfig
from trainables.config.trial import DatasetConfig, TrainingConfig, TrialConfig
from trainables.data.batches import training_batches
from trainables.data.normalization import Normalization
from trainables.data.splits import Data, Split, load_data
from trainables.models.image_sizes import takes_image
from trainables.models.prunable import prunable_weights
from trainables.models.registry import MODELS, build_model, initialize
from trainables.pruning import rounds as pruning
from trainables.pruning import selection
from trainables.pruning.masks import Masks, full_masks, topk_masks
from trainables.pruning.sparse_trainers import FixedMasks
from trainables.training.loop import evaluate, train_epoch
from trainables.training.optimizer import make_optimizer

RECORD: dict[str, Any] = {
    "numerics": {"data": 1, "models": 1, "scores": 2, "training": 1},
    "models": {
        "convnet weights": 0.016217,
        "convnet logits": 0.481258,
        "resnet20 weights": -0.094246,
        "resnet20 logits": 4.125993,
        "resnet18 weights": -0.000713,
        "resnet18 logits": 2.867528,
        "lenet300 weights": -0.035863,
        "lenet300 logits": 0.692445,
        "alexnet weights": 0.009595,
        "alexnet logits": 1.348308,
        "vgg11 weights": -0.01363,
        "vgg11 logits": 0.10425,
        "vgg16 weights": -0.011241,
        "vgg16 logits": 0.017185,
        "vgg19 weights": -0.010487,
        "vgg19 logits": 0.003331,
        "resnet32 weights": -0.059789,
        "resnet32 logits": 38.412116,
        "resnet56 weights": -0.046,
        "resnet56 logits": 771.208232,
        "resnet34 weights": -0.012216,
        "resnet34 logits": 11.644541,
        "resnet50 weights": -0.031028,
        "resnet50 logits": 54.517858,
    },
    "data": {
        "splits": "7c42e60bf9c20b4eddaae9b7eb25d42b046a0b4ef7a7c2475c772e5751c57973",
        "batches": "650872dea177146f8e76d3d3d5ef2bfc227703f85fb48c0fd4eaf32431d66060",
        "normalisation": [0.306336, 0.375657],
    },
    "scores": {
        "mean masks": "f30d1b2d834e79fa9e6b1711a2683ea5ff4b46beeea4c678380e8c9e199a4777",
        "mean loss": 2.424573,
        "mean correlation": 0.961256,
        "sum masks": "cacf9a13e7f7a5f8db8c22b6ae1fbc963efa67ffeaf4805fce97ff2bd35cbc47",
        "sum loss": 2.332836,
        "sum correlation": 0.975318,
    },
    "training": {
        "loss of epoch 1": 2.394148,
        "loss of epoch 2": 2.152772,
        "loss after them": 2.284481,
    },
}

CONFIG = TrialConfig(
    dataset=DatasetConfig(name="digits", limit=200),
    model="convnet",
    prune_iterations=3,
    sparsity=0.9,
    precision="fp32",
    training=TrainingConfig(epochs=2, batch_size=64, lr=0.05, nesterov=True, weight_decay=0.05),
)
HALVES = DriveConfig(magnitude=0.5, connection=2, normalize="sum", density_schedule="linear", score_batches=2)
TOLERANCE = 1e-5  # relative; the float32 sampler and the order of additions of another processor move about 2e-6


@dataclass
class Figures:
    """What was computed now, by component, and the narrowest gap around a threshold of the masks."""

    values: dict[str, dict[str, Any]]
    narrowest_gap: float


def digits() -> Data:
    return in_float64(load_data(CONFIG.dataset, DIGITS, "cpu"))


def smallest_side(name: str) -> int:
    return next(side for side in (8, 16, 32) if takes_image(name, side, side))


def network(name: str = "convnet") -> nn.Module:
    side = smallest_side(name)
    model = build_model(name, (1, side, side), 10)
    initialize(model, CONFIG.seed)
    return RUNTIME.to_device(model.double())


def rounded(value: float | Tensor) -> float:
    return round(float(value), 6)


def of_models() -> dict[str, Any]:
    """Every weight against its own cosine: a sum that moves when any weight does."""
    figures = {}
    for name in MODELS:
        model = network(name)
        weights = prunable_weights(model)
        flat = torch.cat([weight.detach().flatten() for weight in weights.values()])
        figures[f"{name} weights"] = rounded((flat * torch.arange(len(flat)).double().cos()).sum() / math.sqrt(len(flat)))
        side = smallest_side(name)
        images = torch.arange(3 * side * side).double().sin().view(3, 1, side, side)
        figures[f"{name} logits"] = rounded(model.eval()(images).detach().abs().mean())
    return figures


def of_data() -> dict[str, Any]:
    """Splits, order, crops and flips as exact bytes; the normalisation as it is rounded by its maker."""
    data = digits()
    splits: list[Split] = [data.train, data.validation, data.test]
    plain = replace(data, normalization=Normalization(mean=(0.0,), std=(1.0,)), augment="crop_flip")
    content = b"".join(split.images.numpy().tobytes() + split.labels.numpy().tobytes() for split in splits)
    batches = b""
    for epoch in range(2):
        for images, labels in training_batches(plain, 64, seed=0, epoch=epoch):
            batches += (images * 255).round().to(torch.uint8).numpy().tobytes() + labels.numpy().tobytes()
    return {
        "splits": hashlib.sha256(content).hexdigest(),
        "batches": hashlib.sha256(batches).hexdigest(),
        "normalisation": [*data.normalization.mean, *data.normalization.std],
    }


def of_scores(gaps: list[float], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Masks after three rounds, by normalisation; collects the gap around every threshold on the way.

    Ranks are not among them: nearly equal values of another processor may swap theirs. They are held by
    tests/support/oracles.py.
    """

    def measuring(scores_S: Tensor, masks: Masks, count: int) -> Masks:
        kept = topk_masks(scores_S, masks, count)
        ordered = np.sort(scores_S.numpy())[::-1]
        gaps.append(float((ordered[count - 1] - ordered[count]) / ordered[count - 1]))
        return kept

    monkeypatch.setattr(selection, "topk_masks", measuring)
    figures: dict[str, Any] = {}
    for drive in (DriveConfig(), HALVES):
        model = network()
        weights = prunable_weights(model)
        masks = full_masks(weights)
        config = replace(CONFIG, options=drive)
        for round_ in range(1, 4):
            masks, metrics, _ = pruning.prune_round(model, weights, masks, digits(), config, round_, RUNTIME)
        bits = b"".join(np.packbits(mask.numpy().reshape(-1)).tobytes() for mask in masks.values())
        figures[f"{drive.normalize} masks"] = hashlib.sha256(bits).hexdigest()
        figures[f"{drive.normalize} loss"] = rounded(metrics["prune/loss"])
        figures[f"{drive.normalize} correlation"] = rounded(metrics["prune/rank_correlation_connection"])
    return figures


def of_training() -> dict[str, Any]:
    """Losses of two epochs of two steps each, under masks that keep every other weight."""
    model = network()
    masks = {
        name: torch.arange(weight.numel()).remainder(2).bool().view(weight.shape)
        for name, weight in prunable_weights(model).items()
    }
    optimizer = make_optimizer(model, CONFIG.training)
    figures: dict[str, Any] = {}
    for epoch, lr in enumerate((0.05, 0.005)):
        metrics = train_epoch(
            model,
            optimizer,
            FixedMasks(model, masks),
            digits(),
            training=CONFIG.training,
            lr=lr,
            seed=0,
            epoch=epoch,
            runtime=RUNTIME,
        )
        figures[f"loss of epoch {epoch + 1}"] = rounded(metrics["train/loss"])
    figures["loss after them"] = rounded(evaluate(model, digits().test, digits().normalization, RUNTIME, "test")["test/loss"])
    return figures


@pytest.fixture(scope="module")
def figures() -> Figures:
    gaps: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        scores = of_scores(gaps, patch)
    values = {"models": of_models(), "data": of_data(), "scores": scores, "training": of_training()}
    return Figures(values=values, narrowest_gap=min(gaps))


@pytest.mark.slow
@pytest.mark.parametrize("component", ["models", "data", "scores", "training"])
def test_numbers_move_only_together_with_their_numerics(component: str, figures: Figures) -> None:
    assert RECORD["numerics"] == NUMERICS, (
        "NUMERICS in trainables/config/keys.py was raised; RECORD must then hold its integers and these figures: "
        f"{figures.values}"
    )
    now, stored = figures.values[component], RECORD[component]
    moved = [name for name in now.keys() | stored.keys() if differs(now.get(name), stored.get(name))]
    assert not moved, (
        f"{', '.join(moved)} moved: earlier results would no longer be those of this code. If that is meant, raise "
        f'NUMERICS["{component}"] in trainables/config/keys.py (the first of models, data, scores, training that fails; later '
        f"ones may follow from it) and store here: {now}"
    )


def differs(now: Any, stored: Any) -> bool:
    if isinstance(now, float) and isinstance(stored, float):
        return not math.isclose(now, stored, rel_tol=TOLERANCE, abs_tol=2e-6)
    return bool(now != stored)


def test_no_rounding_could_turn_a_mask_of_the_record(figures: Figures) -> None:
    # Scores agree between processors to about 3e-7 of their size.
    assert figures.narrowest_gap > 1e-5
