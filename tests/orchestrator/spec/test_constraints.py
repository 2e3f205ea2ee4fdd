"""Rules over several keys of a sweep file."""

from __future__ import annotations

import pytest

from tests.support.sweep_files import BASE, error_lines

# Added to BASE, which has lines 1 to 3 -> the whole message.
CONFLICTS = {
    "budget too short": (
        "warmup_epochs: 8\ntraining:\n  budget: total\n  epochs: 8\n",
        [
            "s.yaml:7: training.epochs must be > warmup_epochs with training.budget total, got training.epochs 8, "
            "warmup_epochs 8; train longer or warm up shorter"
        ],
    ),
    "budget too short for one combination": (
        "search:\n  warmup_epochs: [0, 4, 8]\n  training.epochs: [20, 6]\ntraining: {budget: total}\n",
        [
            "s.yaml:6: search.training.epochs[1] must be > warmup_epochs with training.budget total, got training.epochs 6, "
            "warmup_epochs 8; train longer or warm up shorter"
        ],
    ),
    "rewind beyond the warm-up": (
        "rewind: epoch 3\nsearch:\n  warmup_epochs: [4, 2, 1]\n",
        [
            "s.yaml:4: rewind must name an epoch <= warmup_epochs, got rewind 'epoch 3', warmup_epochs 2; "
            "rewind less far or warm up longer"
        ],
    ),
    "no term left": (
        "drive: {magnitude: 0, convergence: 0}\nsearch:\n  drive.connection: [1, 0]\n",
        [
            "s.yaml:4: drive.magnitude must not be 0 with both other factors 0, got drive.magnitude 0.0, "
            "drive.connection 0.0, drive.convergence 0.0; raise one of the three"
        ],
    ),
    "channels by a method of weights": (
        "granularity: channel\nmethod: [drive, gmp]\n",
        [
            "s.yaml:4: granularity must be weight for gmp, got granularity 'channel', method ['drive', 'gmp']; "
            "take one of drive, snip, grasp, synflow, magnitude, random, imp, taylor, hap, cap, polarization, consensus"
        ],
    ),
    "target of weights": (
        "target: {channels: 0.5}\n",
        [
            "s.yaml:4: target.channels must be given only with granularity channel, got target.channels 0.5, "
            "granularity 'weight'; write granularity: channel"
        ],
    ),
    "compensation of weights": (
        "compensate: true\n",
        [
            "s.yaml:4: compensate must be given only with granularity channel, got compensate true, granularity 'weight'; "
            "write granularity: channel"
        ],
    ),
    "layers of channels": (
        "granularity: channel\nlayer_sparsity: erk\n",
        [
            "s.yaml:5: layer_sparsity must be given only with granularity weight, got layer_sparsity 'erk', "
            "granularity 'channel'; remove it"
        ],
    ),
    "constant counts of layers beside the early pruning indicator": (
        "warmup_epochs: auto\nlayer_sparsity: uniform\n",
        [
            "s.yaml:5: layer_sparsity must fit: warmup.rule must be overlap for uniform: its layers always keep the same "
            "number of weights, got warmup.rule 'epi', layer_sparsity 'uniform'; write warmup: {rule: overlap}"
        ],
    ),
    "two targets": (
        "granularity: channel\ntarget: {channels: 0.5, parameters: 0.5}\n",
        ["s.yaml:5: target.channels must be the only target, got target.channels 0.5, target.parameters 0.5; keep one of them"],
    ),
    "sparsity beside a target": (
        "granularity: channel\nsparsity: 0.5\ntarget: {channels: 0.5}\n",
        [
            "s.yaml:5: sparsity must not be given with target.channels, which decides it, got sparsity 0.5, "
            "target.channels 0.5; remove one of the two"
        ],
    ),
    "compensation of weights that are not trained on": (
        "method: cap\nsparsity: 0.5\nwarmup_epochs: 2\nrewind: init\n",
        [
            "s.yaml:4: method must not be cap with rewind, which undoes compensation, got method 'cap', rewind 'init'; "
            "remove rewind"
        ],
    ),
    "implants beside compensation": (
        "method: hap\nsparsity: 0.5\nhap: {implant: 0.1}\ncompensate: true\ngranularity: channel\n",
        [
            "s.yaml:6: hap.implant must be 0 with compensate, whose fit needs whole filters, got hap.implant 0.1, "
            "compensate true; remove one of the two"
        ],
    ),
    "nesterov without momentum": (
        "training:\n  momentum: 0\n  nesterov: true\n",
        [
            "s.yaml:6: training.nesterov must be false with momentum 0, got training.nesterov true, training.momentum 0.0; "
            "raise training.momentum"
        ],
    ),
}

# Whole files.
DATASET_CONFLICTS = {
    "blocks of another network": (
        "name: x\ndataset: {name: digits}\nmodel: lenet300\nblock: orepa\n",
        [
            "s.yaml:4: block must be plain for this model, got block 'orepa', model 'lenet300'; remove it, or take one of "
            "convnet, resnet20, resnet18, vgg11, vgg16, vgg19, resnet32, resnet56, resnet34, resnet50"
        ],
    ),
    "files without a folder": (
        "name: x\nmodel: convnet\ndataset:\n  name: cifar10\n  image_size: 32\n",
        [
            "s.yaml:3: dataset.root must be given for cifar10, got dataset.root nothing, dataset.name 'cifar10'; "
            "add root: ./data",
            "s.yaml:5: dataset.image_size must not be given for cifar10, got dataset.image_size 32, dataset.name 'cifar10'; "
            "remove it, its images have one size",
        ],
    ),
    "images without a size": (
        "name: x\nmodel: convnet\ndataset: {name: image_folder, root: a}\n",
        [
            "s.yaml:3: dataset.image_size must be given for image_folder, got dataset.image_size nothing, "
            "dataset.name 'image_folder'; add image_size: 32"
        ],
    ),
    "digits in a folder": (
        "name: x\nmodel: convnet\ndataset:\n  name: digits\n  root: a\n  download: true\n",
        [
            "s.yaml:5: dataset.root must not be given for digits, got dataset.root 'a', dataset.name 'digits'; "
            "remove it, digits come with the program",
            "s.yaml:6: dataset.download must be false for digits, got dataset.download true, dataset.name 'digits'; "
            "only cifar10, cifar100 and fashion_mnist are fetched",
        ],
    ),
    "a size that the images have, and what nobody may fetch": (
        "name: x\nmodel: convnet\ndataset: {name: tiny_imagenet, root: a, image_size: 32, download: true}\n",
        [
            "s.yaml:3: dataset.image_size must not be given for tiny_imagenet, got dataset.image_size 32, "
            "dataset.name 'tiny_imagenet'; remove it, its images have one size",
            "s.yaml:3: dataset.download must be false for tiny_imagenet, got dataset.download true, "
            "dataset.name 'tiny_imagenet'; only cifar10, cifar100 and fashion_mnist are fetched",
        ],
    ),
    "only streamed images are prescaled": (
        "name: x\nmodel: convnet\ndataset: {name: cifar10, root: a, prescaled: true}\n",
        [
            "s.yaml:3: dataset.prescaled must be false for cifar10, got dataset.prescaled true, dataset.name 'cifar10'; remove "
            "it, only imagenet is streamed",
        ],
    ),
    "imagenet too small for the network": (
        "name: x\nmodel: alexnet\ndataset: {name: imagenet, root: a, image_size: 16}\n",
        [
            "s.yaml:2: model must be a network for images of 16 x 16 pixels, got model 'alexnet', dataset.name 'imagenet', "
            "dataset.image_size 16; the nearest that work are 32 x 32; resnet20 takes any",
        ],
    ),
}


@pytest.mark.parametrize(("addition", "expected"), CONFLICTS.values(), ids=CONFLICTS)
def test_conflict_is_reported_with_the_values_of_its_keys(addition: str, expected: list[str]) -> None:
    assert error_lines(BASE + addition) == expected


@pytest.mark.parametrize(("text", "expected"), DATASET_CONFLICTS.values(), ids=DATASET_CONFLICTS)
def test_conflict_of_dataset_keys_is_reported(text: str, expected: list[str]) -> None:
    assert error_lines(text) == expected
