"""The smallest experiments of related methods on one small network, beside figures of an independent implementation.

    python -m tests.benchmarks.related_scores [--only hap epi cap polarization orepa]

Everything that is measured is this project's code; the network, CNN3, and its training by Adam are here alone. Figures depend
on the processor, so each experiment also has a bar, and its line says whether it holds. Minutes on one CPU core.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, max_pool2d

from tests.support.oracles import spearman
from trainables.channels.compensation import compensate, input_moments
from trainables.channels.dependencies import find_units
from trainables.channels.fitting import fit_to_remaining
from trainables.config.methods import HapConfig, TaylorConfig
from trainables.config.trial import DatasetConfig, TargetConfig, TrialConfig, WarmupConfig
from trainables.data.normalization import Normalization
from trainables.data.splits import Data, Split
from trainables.models.blocks import with_blocks
from trainables.models.orepa import OrepaConv, squeezed
from trainables.models.prunable import prunable_weights
from trainables.pruning.channel_scorers import score_hap
from trainables.pruning.channel_selection import ChannelSelection
from trainables.pruning.masks import full_masks
from trainables.pruning.polarization import polarization_gradient
from trainables.pruning.rounds import prune_round
from trainables.pruning.scoring import Batch, ScoringContext
from trainables.pruning.virtual_masks import virtual_masks
from trainables.runtime.device import Runtime
from trainables.trial.mask_stability import MaskHistory, channels_in, is_stable
from trainables.trial.selections import selection_of
from trainables.wording import counted

SHAPE, TRAINED, TESTED, BATCH = (1, 8, 8), 1297, 500, 64
RUNTIME = Runtime(channels_last=False)
CONFIG = TrialConfig(dataset=DatasetConfig(name="digits"), model="CNN3", granularity="channel", precision="fp32")


class CNN3(nn.Module):
    """Three 3x3 convolutions with BN and ReLU, of 16, 32 and 32 channels, and a linear layer on the mean of the last maps."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(32)
        self.conv3 = nn.Conv2d(32, 32, 3, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(32)
        self.head = nn.Linear(32, 10)

    def forward(self, images: Tensor) -> Tensor:
        hidden = torch.relu(self.norm1(self.conv1(images)))
        hidden = max_pool2d(torch.relu(self.norm2(self.conv2(hidden))), 2)
        hidden = torch.relu(self.norm3(self.conv3(hidden)))
        logits: Tensor = self.head(hidden.mean(dim=(2, 3)))
        return logits


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the result: what was measured, here and there, and whether its bar holds."""

    name: str
    ours: str
    expected: str
    bar: str
    holds: bool


def digits() -> Data:
    """scikit-learn's digits in 0..1, the first 1,297 of a permutation for training and the last 500 for tests."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = torch.randperm(len(bunch.target), generator=torch.Generator().manual_seed(0))
    images = torch.from_numpy(bunch.images).to(torch.uint8)[order, None]  # whole numbers up to 16
    labels = torch.from_numpy(bunch.target).long()[order]
    train, test = (Split(images=images[part], labels=labels[part]) for part in (slice(TRAINED), slice(-TESTED, None)))
    normalization = Normalization(mean=(0.0,), std=(16 / 255,))
    return Data(train=train, validation=test, test=test, normalization=normalization, num_classes=10, augment="none")


DATA = digits()


def images_of(split: Split) -> Batch:
    return DATA.normalization.apply(split.images.float() / 255), split.labels


def new_network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return CNN3()


def train(
    network: nn.Module,
    epochs: int,
    seed: int,
    optimizer: torch.optim.Optimizer | None = None,
    after_backward: Callable[[], None] = lambda: None,
    after_step: Callable[[], None] = lambda: None,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
) -> nn.Module:
    """Trains in place, by Adam with 3e-3 unless given another optimizer."""
    optimizer = optimizer or torch.optim.Adam(network.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(seed)
    images, labels = images_of(DATA.train)
    network.train()
    for _ in range(epochs):
        for batch in torch.randperm(TRAINED, generator=generator).split(BATCH):
            optimizer.zero_grad()
            cross_entropy(network(images[batch]), labels[batch]).backward()
            after_backward()
            optimizer.step()
            after_step()
        if scheduler is not None:
            scheduler.step()
    return network


def accuracy(network: nn.Module) -> float:
    """On the test images, in percent."""
    images, labels = images_of(DATA.test)
    with torch.inference_mode():
        return 100 * float((network.eval()(images).argmax(1) == labels).double().mean())


def hap() -> Iterator[Row]:
    """HAP's score against the true increase of the loss when one filter is zero, over all 80 filters."""
    correlations: dict[str, list[float]] = {"HAP": [], "magnitude": []}
    for seed in (0, 1):
        network = train(new_network(seed), 12, seed).eval()
        weights, units = prunable_weights(network), find_units(network, SHAPE)
        context = ScoringContext(
            model=network,
            weights=weights,
            masks=full_masks(weights),
            surviving=None,
            keep=1,
            config=replace(CONFIG, method="hap", options=HapConfig(probes=50)),
            round_=1,
            image_shape=SHAPE,
            runtime=RUNTIME,
            train_images=TRAINED,
            draw_batches=lambda per_class, count: iter([images_of(DATA.train)]),
            units=units,
        )
        increases, magnitudes = [], []
        for layer in ("conv1", "conv2", "conv3"):
            for row in range(len(weights[f"{layer}.weight"])):
                magnitudes.append(float(weights[f"{layer}.weight"][row].detach().square().mean().sqrt()))
                increases.append(loss_without(network, layer, row))
        correlations["HAP"].append(spearman(score_hap(context).scores.tolist(), increases))
        correlations["magnitude"].append(spearman(magnitudes, increases))
    found = {name: listed(values, 2) for name, values in correlations.items()}
    holds = min(correlations["HAP"]) >= 0.5
    yield Row(name="rank correlation, HAP, 50 probes", ours=found["HAP"], expected="0.73 0.75", bar=">= 0.5", holds=holds)
    yield Row(name="the same, RMS magnitude", ours=found["magnitude"], expected="0.70 0.66", bar="", holds=True)


def loss_without(network: nn.Module, layer: str, row: int) -> float:
    images, labels = images_of(DATA.train)
    without = copy.deepcopy(network)
    with torch.no_grad():
        without.get_parameter(f"{layer}.weight")[row] = 0.0
        return float(cross_entropy(without(images), labels))


def epi() -> Iterator[Row]:
    """The early pruning indicator ends dense training once; then half of the neurons go, as its sub-network had it.

    Ranked by Taylor scores. Magnitudes, also those of the paper, leave one channel of the last layer at any epoch here. In one
    round so do Taylor scores of the first layers, as hardly any loss is left to differentiate; in ten rounds they are taken
    anew in between, as the authors of the paper do in HALP.
    """
    config = replace(
        CONFIG,
        method="taylor",
        options=TaylorConfig(score_batches=10),  # of 128: all images
        sparsity=0.5,
        target=TargetConfig(channels=0.5),
        warmup_epochs=29,
        warmup=WarmupConfig(auto=True),
    )
    for seed in (0, 1, 2):
        network, history, epochs = new_network(seed), MaskHistory(window=config.warmup.window), 30
        optimizer, trigger, indicated = torch.optim.Adam(network.parameters(), 3e-3), 0, dict[str, int]()
        for epoch in range(epochs):
            (masks,) = virtual_masks(network, DATA, [config], RUNTIME, selection_of=partial(channel_selection, model=network))
            history.add(channels_in(masks))
            if is_stable(history.readings, config):
                trigger, indicated = epoch, {name: int(kept.sum()) for name, kept in history.masks[-1].items()}
                break
            train(network, 1, 1000 * seed + epoch, optimizer)
        smaller = pruned(copy.deepcopy(network), config)
        kept = {name: len(weight) for name, weight in prunable_weights(smaller).items()}
        counts = " ".join(map(str, kept.values()))
        yield Row(
            name=f"channels kept, trigger at epoch {trigger or None}, seed {seed}",
            ours=counts,
            expected=" ".join(map(str, indicated.values())),
            bar="one trigger, as indicated",
            holds=trigger > 0 and kept == indicated,
        )
        for rounds in (1, 10):
            smaller = pruned(copy.deepcopy(network), config, rounds)
            early = accuracy(train(smaller, epochs - trigger, seed))
            at_once = accuracy(train(pruned(new_network(seed), config, rounds), epochs, seed))
            yield Row(
                name=f"accuracy, %, seed {seed}, {counted(rounds, 'round')}",
                ours=f"{early:.1f}",
                expected=f"pruned at epoch 0: {at_once:.1f}",
                bar="at most 1 point below" if rounds > 1 else "",
                holds=rounds == 1 or early >= at_once - 1,
            )


def pruned(network: nn.Module, config: TrialConfig, rounds: int = 1) -> nn.Module:
    """The smaller network after so many rounds."""
    config = replace(config, prune_iterations=rounds)
    selection, weights = channel_selection(config, network), prunable_weights(network)
    masks = full_masks(weights)
    for round_ in range(1, rounds + 1):
        masks, *_ = prune_round(network, weights, masks, DATA, config, round_, RUNTIME, selection=selection)
        with torch.no_grad():
            for name, mask in selection.with_other_tensors(masks, network).items():
                network.get_parameter(name).mul_(mask)
    return selection.finished(network, masks)


def channel_selection(config: TrialConfig, model: nn.Module) -> ChannelSelection:
    selection = selection_of(config, model, SHAPE)
    assert isinstance(selection, ChannelSelection)
    return selection


def cap() -> Iterator[Row]:
    """Half of the third convolution's inputs removed: plainly, and with compensation in closed form."""
    ways: dict[str, list[float]] = {"plain": [], "least squares": [], "rescaled": []}
    images, _ = images_of(DATA.train)
    for seed in (0, 1, 2):
        network = train(new_network(seed), 12, seed).eval()
        units = find_units(network, SHAPE)
        weight = network.get_parameter("conv3.weight").detach()
        moments = input_moments(network, ["conv3"], [images])["conv3"]
        variance = moments.covariance.diagonal().view(32, 9)
        explained = (weight.double().flatten(2).square().sum(0) * variance).sum(1)
        kept = torch.ones(32, dtype=torch.bool)
        kept[explained.argsort()[:16]] = False
        (group,) = (one for one in units.groups if one.name == "conv2")
        kept_units = torch.ones(units.count, dtype=torch.bool)
        kept_units[group.start : group.start + group.size] = kept
        plain, fitted, rescaled = (copy.deepcopy(network) for _ in range(3))
        found = compensate(weight.flatten(1), moments, kept.repeat_interleave(9))
        with torch.no_grad():
            plain.get_parameter("conv3.weight")[:, ~kept] = 0.0
            fitted.get_parameter("conv3.weight").zero_()
            fitted.get_parameter("conv3.weight")[:, kept] = found.weight.float().view(32, 16, 3, 3)
            fitted.get_buffer("norm3.running_mean").sub_(found.bias.float())
        fit_to_remaining(rescaled, network, units, kept_units, [images])
        for name, one in zip(ways, (plain, fitted, rescaled), strict=True):
            ways[name].append(accuracy(one))
    expected = {"plain": "56.6 23.2 53.2", "least squares": "98.4 98.6 98.0", "rescaled": "98.4 98.8 98.2"}
    for name, values in ways.items():
        holds = name == "plain" or all(value >= max(95, base + 20) for value, base in zip(values, ways["plain"], strict=True))
        bar = "" if name == "plain" else ">= 95 and plain + 20"
        yield Row(name=f"half the inputs, {name}, %", ours=listed(values, 1), expected=expected[name], bar=bar, holds=holds)


def polarization() -> Iterator[Row]:
    """How many scales of norm layers end below 0.1, by the strength of the regulariser."""
    small, accuracies = list[int](), list[float]()
    for penalty, strength in ((0.0, 0.0), (3e-3, 0.0), (3e-3, 1.0), (3e-3, 1.4)):
        network = new_network(0)
        scales = [module.weight for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        with torch.no_grad():
            for scale in scales:
                scale.fill_(0.5)

        def regularize(scales: list[nn.Parameter] = scales, penalty: float = penalty, strength: float = strength) -> None:
            slopes = penalty * polarization_gradient(torch.cat([scale.detach() for scale in scales]), strength)
            for scale, slope in zip(scales, slopes.split([scale.numel() for scale in scales]), strict=True):
                assert scale.grad is not None
                scale.grad += slope

        def clamp(scales: list[nn.Parameter] = scales, penalty: float = penalty) -> None:
            with torch.no_grad():
                for scale in scales if penalty else []:
                    scale.clamp_(0.0, 1.0)

        optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 15)
        train(network, 15, 0, optimizer, regularize, clamp, scheduler)
        small.append(sum(int((scale < 0.1).sum()) for scale in scales))
        accuracies.append(accuracy(network))
    yield Row(
        name="scales < 0.1 of 80: none, t = 0, 1, 1.4",
        ours=" ".join(map(str, small)),
        expected="0 0 7 37",
        bar="rising with t",
        holds=small[1:] == sorted(small[1:]) and small[3] > small[1],
    )
    yield Row(
        name="accuracy, %",
        ours=listed(accuracies, 1),
        expected="99.4 99.2 99.2 98.8",
        bar=">= 97",
        holds=min(accuracies) >= 97,
    )


def orepa() -> Iterator[Row]:
    """The network with blocks against the plain one, and its outputs when the blocks are squeezed."""
    images, _ = images_of(DATA.test)
    for seed in (0, 1, 2):
        plain = accuracy(train(new_network(seed), 12, seed))
        network = with_blocks(new_network(seed), "orepa")
        for module in network.modules():
            if isinstance(module, OrepaConv):
                module.initialize(torch.Generator().manual_seed(seed))
        train(network, 12, seed)
        blocks = accuracy(network)
        with torch.inference_mode():
            before, after = network(images), squeezed(copy.deepcopy(network))(images)
        error = float((before - after).abs().max() / before.abs().max())
        yield Row(
            name=f"blocks, %, seed {seed}",
            ours=f"{blocks:.1f}, squeezed off by {error:.1g}",
            expected=f"plain here: {plain:.1f}",
            bar="no more than 1 point below, off by < 1e-5",
            holds=blocks >= plain - 1 and error < 1e-5,
        )


def listed(values: list[float], digits: int) -> str:
    return " ".join(f"{value:.{digits}f}" for value in values)


EXPERIMENTS = {one.__name__: one for one in (hap, epi, cap, polarization, orepa)}


def main() -> None:
    parser = argparse.ArgumentParser(description="smallest experiments of related methods")
    parser.add_argument("--only", nargs="+", choices=list(EXPERIMENTS), default=list(EXPERIMENTS))
    torch.set_num_threads(1)
    for name in parser.parse_args().only:
        for row in EXPERIMENTS[name]():
            verdict = "" if not row.bar else f"{'holds' if row.holds else 'FAILS'}: {row.bar}"
            print(f"{name:13}{row.name:46}{row.ours:28}expected {row.expected:24}{verdict}", flush=True)


if __name__ == "__main__":
    main()
