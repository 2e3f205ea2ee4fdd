"""Statistics of networks, against counts by hand, an enumeration of paths, and published figures."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.support.trials import RUNTIME, new_storage, run, tiny_config
from tests.trainables.pruning.test_scorers import digits
from trainables.analysis.model_stats import masks_sha256, model_stats
from trainables.data.splits import Split
from trainables.models.prunable import prunable_weights
from trainables.models.registry import build_model, initialize
from trainables.pruning.masks import full_masks
from trainables.training.loop import evaluate_raw
from trainables.trial.result import size_metrics


def network(name: str, side: int = 32, channels: int = 3, classes: int = 10) -> nn.Module:
    model = build_model(name, (channels, side, side), classes)
    initialize(model, 0)
    return model


def test_flops_of_convolutions_match_counts_by_hand() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),  # 10 - 3 + 1 = 8 pixels a side
        nn.Conv2d(8, 4, 3, stride=2, padding=1),  # 4 a side
        nn.Conv2d(4, 4, 3, padding=1, groups=4),  # 9 weights a channel
        nn.Flatten(),
        nn.Linear(64, 5),
    )
    weights = prunable_weights(model)
    masks = full_masks(weights)
    masks["0.weight"][:4] = False
    stats = model_stats(model, masks, (3, 10, 10))
    assert list(stats.layer_flops.values()) == [64 * 8 * 27, 16 * 4 * 72, 16 * 4 * 9, 320]
    assert list(stats.kept_layer_flops.values()) == [64 * 4 * 27, 16 * 4 * 72, 16 * 4 * 9, 320]
    assert stats.flops == 13_824 + 4608 + 576 + 320
    assert stats.theoretical_speedup == pytest.approx((13_824 + 4608 + 576 + 320) / (6912 + 4608 + 576 + 320))
    biases = 8 + 4 + 4 + 5
    assert (stats.parameters, stats.kept_parameters) == (216 + 288 + 36 + 320 + biases, 108 + 288 + 36 + 320 + biases)
    assert stats.compression_ratio == pytest.approx((860 + biases) / (752 + biases))
    assert stats.parameter_sparsity == pytest.approx(108 / (860 + biases))


@pytest.mark.slow
def test_flops_of_vgg_and_resnet_match_published_tables() -> None:
    """VGG-16 on 32 x 32: 313.2 million in its convolutions; ResNet-20: 40.55 million and its 1x1 shortcuts."""
    side, channels, total = 32, 3, 0
    for widths in ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3):
        for width in widths:
            total += side * side * channels * width * 9
            channels = width
        side //= 2
    vgg = network("vgg16")
    assert model_stats(vgg, full_masks(prunable_weights(vgg)), (3, 32, 32)).flops == total + 5120
    assert total == 313_196_544
    resnet = network("resnet20")
    shortcuts = 16 * 32 * 16 * 16 + 32 * 64 * 8 * 8
    # The first figure: He et al., section 4.2, counted.
    assert model_stats(resnet, full_masks(prunable_weights(resnet)), (3, 32, 32)).flops == 40_551_040 + shortcuts


class Attending(nn.Module):
    """A network whose parts read a prunable weight without calling its layer, and do more than multiply and add."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 3)
        self.auxiliary = nn.Linear(4, 3)  # never called in evaluation

    def forward(self, images_BCHW: Tensor) -> Tensor:
        tokens = images_BCHW.flatten(2).transpose(1, 2)
        mixed, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        logits: Tensor = self.head(mixed.mean(1))
        return logits


def test_known_figures_of_an_unusual_network() -> None:
    model = Attending()
    masks = full_masks(prunable_weights(model))
    assert {"attention.out_proj.weight", "head.weight", "auxiliary.weight"} == set(masks)
    masks["attention.out_proj.weight"][:2] = False
    stats = model_stats(model, masks, (4, 2, 2))
    assert stats.connected_weights is None
    assert stats.effective_sparsity is None
    assert stats.layer_flops == {"attention.out_proj.weight": 4 * 16, "head.weight": 12, "auxiliary.weight": 0}
    dense = 4 * 48 + 2 * (4 * 4 * 4)  # queries, keys and values of 4 tokens; their products, over both heads
    assert stats.flops == dense + 4 * 16 + 12
    assert stats.kept_flops == dense + 4 * 8 + 12
    assert (stats.kept, stats.prunable) == (8 + 12 + 12, 16 + 12 + 12)
    assert "model/effective_sparsity" not in size_metrics(stats)
    assert size_metrics(stats)["model/theoretical_speedup"] == stats.flops / stats.kept_flops


class Transformed(nn.Module):
    """A network with an operation that PyTorch's counter has no formula for."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 3)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.fft.fft(images_BCHW.flatten(1)).real)
        return logits


def test_unknown_figures_are_none() -> None:
    model = Transformed()
    stats = model_stats(model, full_masks(prunable_weights(model)), (1, 4, 4))
    assert (stats.flops, stats.kept_flops, stats.theoretical_speedup) == (None, None, None)
    assert stats.layer_flops == {"head.weight": 48}
    assert not {"model/flops", "model/theoretical_speedup"} & set(size_metrics(stats))


def test_network_without_kept_weights_has_no_ratios() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3, bias=False))
    masks = {name: torch.zeros_like(mask) for name, mask in full_masks(prunable_weights(model)).items()}
    stats = model_stats(model, masks, (1, 4, 4))
    assert (stats.kept, stats.kept_flops, stats.kept_parameters) == (0, 0, 0)
    assert (stats.theoretical_speedup, stats.compression_ratio, stats.parameter_sparsity) == (None, None, 1.0)
    assert not {"model/compression_ratio", "model/theoretical_speedup"} & set(size_metrics(stats))


def test_excluded_layers_count_as_dense() -> None:
    model = network("convnet", 8, 1)
    masks = full_masks(prunable_weights(model, ("head",)))
    stats = model_stats(model, {name: torch.zeros_like(mask) for name, mask in masks.items()}, (1, 8, 8))
    assert stats.kept_flops == 1280
    assert (stats.kept, stats.connected_weights, stats.prunable) == (0, 0, 15_248 - 1280)


def test_model_stats_do_not_change_the_network() -> None:
    model = network("resnet20").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model_stats(model, full_masks(prunable_weights(model)), (3, 32, 32))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())


def test_masks_digest_depends_on_every_bit() -> None:
    masks = {"a": torch.tensor([True, False]), "b": torch.tensor([[True]])}
    swapped = {"a": torch.tensor([False, True]), "b": torch.tensor([[True]])}
    assert masks_sha256(masks) == masks_sha256(dict(reversed(list(masks.items()))))
    assert masks_sha256(masks) != masks_sha256(swapped)
    assert masks_sha256({"a": torch.ones(4)}) != masks_sha256({"a": torch.ones(2, 2)})


def test_top5_accuracy_needs_a_hundred_classes() -> None:
    data = digits()
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 100)).double()
    split = Split(images=data.test.images, labels=(data.test.labels * 10))
    metrics = evaluate_raw(model, split, data.normalization, replace(RUNTIME, channels_last=False))
    scores = model(data.normalization.apply(split.images.float() / 255))
    hits = sum(int(label) in row.argsort(descending=True)[:5].tolist() for row, label in zip(scores, split.labels, strict=True))
    assert metrics["top5_accuracy"] == hits / len(split)
    assert metrics["accuracy"] == int((scores.argmax(1) == split.labels).sum()) / len(split)
    ten = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double()
    assert "top5_accuracy" not in evaluate_raw(ten, data.test, data.normalization, RUNTIME)


def test_result_holds_the_statistics(tmp_path_factory: pytest.TempPathFactory) -> None:
    config = tiny_config(sparsity=0.95)
    result = run(config, new_storage(tmp_path_factory.mktemp("runs")))
    layers = {layer["name"]: layer for layer in result["layers"]}
    assert (result["requested_sparsity"], result["seed"]) == (0.95, 0)
    assert result["achieved_sparsity"] == pytest.approx(1 - 762 / 15_248)
    assert result["parameters"] == 15_248 + 10 + 2 * (16 + 32 + 32)
    assert result["kept_parameters"] == result["parameters"] - 15_248 + 762
    assert 0 < result["live_weights"] <= result["kept_weights"] == 762
    assert result["flops"] == 64 * 144 + 16 * 4608 + 16 * 9216 + 1280
    per_weight = {"conv1.weight": 64, "conv2.weight": 16, "conv3.weight": 16, "head.weight": 1}
    assert result["kept_flops"] == sum(layers[name]["kept"] * uses for name, uses in per_weight.items())
    for layer in layers.values():
        assert layer["density"] == layer["kept"] / torch.Size(layer["shape"]).numel()
        assert layer["score_mean"] > 0
        assert layer["score_std"] > 0
    metrics = result["metrics"]
    assert metrics["model/sparsity"] == result["achieved_sparsity"]
    assert metrics["model/effective_sparsity"] == pytest.approx(1 - result["live_weights"] / 15_248)
    assert metrics["model/theoretical_speedup"] == pytest.approx(result["flops"] / result["kept_flops"])
    assert metrics["cost/total_dense_epochs"] > metrics["cost/search_dense_epochs"] > metrics["cost/prune_dense_epochs"] > 0
    assert {"prune/val_accuracy_before", "prune/val_accuracy_after"} <= set(metrics)
