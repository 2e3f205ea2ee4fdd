"""SynFlow and SNIP on VGG-16 at 90 % beside the SynFlow paper's own runs, by layer; and SynFlow's limits.

    python -m tests.acceptance.published_layer_densities [FOLDER of CIFAR-10 images, train/CLASS/*.jpg]

Published: VGG-16-BN with 100 classes and Kaiming-normal weights, arXiv:2006.05467, taken from the authors' stored results (one
run). SynFlow must agree within 0.02; SNIP was scored there on other data, so its densities are only shown. On the same network
every layer's flow is the same to 1e-12, and at 99.9 % no layer is empty.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import torch

from trainables.config.methods import SnipConfig
from trainables.config.trial import DatasetConfig, TrainingConfig, TrialConfig
from trainables.data.normalization import Normalization
from trainables.data.source import DatasetSource
from trainables.data.splits import Data, Split, load_data
from trainables.models.prunable import prunable_weights
from trainables.models.registry import build_model, initialize
from trainables.pruning.masks import Masks, full_masks
from trainables.pruning.rounds import prune_round
from trainables.pruning.synflow import synaptic_flow
from trainables.runtime.device import Runtime

PUBLISHED = {
    "synflow": (0.997, 0.897, 0.805, 0.644, 0.435, 0.248, 0.235, 0.122, 0.060, 0.060, 0.056, 0.054, 0.060, 0.857),
    "snip": (0.915, 0.570, 0.408, 0.281, 0.205, 0.148, 0.171, 0.122, 0.078, 0.080, 0.094, 0.075, 0.081, 0.535),
}
TOLERANCE = 0.02


def densities(config: TrialConfig, data: Data, classes: int) -> list[float]:
    """The share of kept weights of every layer."""
    runtime = Runtime(threads=torch.get_num_threads())
    model = build_model("vgg16", data.image_shape, classes)
    initialize(model, config.seed)
    model = runtime.to_device(model)
    weights = prunable_weights(model)
    masks: Masks = full_masks(weights)
    for round_ in range(1, config.rounds + 1):
        masks, *_ = prune_round(model, weights, masks, data, config, round_, runtime)
    return [float(mask.double().mean()) for mask in masks.values()]


def show(name: str, densities: list[float]) -> float:
    print(f"{name}\n  published {' '.join(f'{value:.3f}' for value in PUBLISHED[name])}")
    print(f"  here      {' '.join(f'{value:.3f}' for value in densities)}")
    worst = max(abs(ours - theirs) for ours, theirs in zip(densities, PUBLISHED[name], strict=True))
    print(f"  largest difference {worst:.3f}")
    return worst


def no_images() -> Data:
    nothing = Split(images=torch.zeros((1, 3, 32, 32), dtype=torch.uint8), labels=torch.zeros(1, dtype=torch.int64))
    normalization = Normalization(mean=(0.5,) * 3, std=(0.5,) * 3)
    return Data(train=nothing, validation=nothing, test=nothing, normalization=normalization, num_classes=100, augment="none")


def main() -> int:
    base = TrialConfig(dataset=DatasetConfig(name="image_folder", image_size=32), model="vgg16", sparsity=0.9)
    worst = show("synflow", densities(replace(base, method="synflow", prune_iterations=100), no_images(), 100))
    if len(sys.argv) > 1:
        data = load_data(base.dataset, DatasetSource(name="image_folder", image_size=32, root=sys.argv[1]), "cpu")
        # The authors' run: 10 images a class, BN in eval mode, 100 rounds (their stored arguments).
        snip = SnipConfig(images_per_class=10, batch_norm="running")
        one = replace(base, method="snip", options=snip, training=TrainingConfig(batch_size=256))
        show("snip", densities(replace(one, prune_iterations=100), data, data.num_classes))
        print("in one shot:")
        show("snip", densities(one, data, data.num_classes))
    model = build_model("vgg16", (3, 32, 32), 100)
    initialize(model, 0)
    flow = synaptic_flow(model, prunable_weights(model), (3, 32, 32))
    sums = torch.stack([layer.sum() for layer in flow.values()])
    spread = float((sums.max() - sums.min()) / sums.max())
    print(f"flow by layer: equal to {spread:.1e}; {sum(layer.numel() for layer in flow.values()):,} prunable weights")
    limit = densities(replace(base, method="synflow", prune_iterations=100, sparsity=0.999), no_images(), 100)
    print(f"synflow at 99.9 %: {sum(value == 0 for value in limit)} empty layers, lowest density {min(limit):.6f}")
    return 0 if worst <= TOLERANCE and spread <= 1e-12 and min(limit) > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
