"""The report on a data set and its splits: counts, files, duplicates, constant pixels, missing classes.

Images are duplicates if their decoded pixels are equal; nearly equal ones are not detected.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from trainables.config.trial import DatasetConfig
from trainables.custom.references import is_custom
from trainables.data import datasets
from trainables.data.facts import DataFacts
from trainables.data.image_files import printable
from trainables.data.source import DatasetSource
from trainables.data.splits import Data, Split, class_counts, split_indices
from trainables.data.table import dataset_of
from trainables.findings import Finding

VERSION = 2  # increased when the report of the same data changes
MAX_HEADERS = 2000  # files whose headers are read
STREAMED_SAMPLE = 256  # images of a split that is not decoded as a whole
MAX_SIZES = 12  # in the report
EXAMPLES = 3
SCALE_RATIO = 8  # of the largest values of two splits
MUCH_CROPPED = 0.2  # of the pixels of an average image
CHUNK = 4096


def data_report(config: DatasetConfig, source: DatasetSource, facts: DataFacts, data: Data) -> dict[str, Any]:
    """The report as JSON: "splits", "files", "duplicates", "findings" and more."""
    splits = {"training": data.train, "validation": data.validation, "test": data.test}
    counts = {name: class_counts(split.labels.cpu()) for name, split in splits.items()}
    files, findings = _files(source)
    findings += _class_findings(counts, facts.classes)
    samples = {name: _sample(split) for name, split in splits.items()}
    duplicates, duplicate_findings = _duplicates(samples, facts.classes, _names(config, source))
    findings += duplicate_findings
    findings += _constant(samples, _names(config, source))
    findings += _scales(samples)
    complete = all(len(images) == len(splits[name]) for name, (images, _) in samples.items())
    if not complete:
        message = f"only the first {STREAMED_SAMPLE} images of each split were checked for their pixels and for duplicates"
        findings.append(Finding(check="sample", severity="info", message=message))
    return {
        "version": VERSION,
        "dataset": config.name,
        "image_shape": list(data.image_shape),
        "classes": list(facts.classes),
        "splits": {
            name: {"images": sum(one), "by_class": [*one, *[0] * (len(facts.classes) - len(one))]}
            for name, one in counts.items()
        },
        "normalization": {"mean": list(data.normalization.mean), "std": list(data.normalization.std)},
        "augment": data.augment,
        "files": files,
        "duplicates": duplicates | {"complete": complete},
        "findings": [finding.to_json() for finding in findings],
    }


def _files(source: DatasetSource) -> tuple[dict[str, Any] | None, list[Finding]]:
    """Sizes and modes of the image files, from the headers of at most MAX_HEADERS of them; and findings about skipped files."""
    if not dataset_of(source.name).has_image_files:
        return None, []
    from PIL import Image

    index = datasets.file_index(source)
    names = [*index.train, *index.test]
    sample = names[:: max(1, -(-len(names) // MAX_HEADERS))]
    sizes: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    cropped: dict[str, float] = {}  # share of the pixels outside the central square, of images that are not square
    for name in sample:
        with Image.open(index.root / name) as image:
            sizes[f"{image.width} x {image.height}"] += 1
            kinds[f"{image.format} {image.mode}"] += 1
            if image.width != image.height:
                cropped[name] = 1 - min(image.size) / max(image.size)
    report = {
        "number": len(names),
        "headers_read": len(sample),
        "sizes": dict(sizes.most_common(MAX_SIZES)),
        "other_sizes": max(0, len(sizes) - MAX_SIZES),
        "kinds": dict(kinds.most_common()),
        "left_out": [
            {"reason": files.reason, "count": files.count, "examples": list(files.examples)} for files in index.skipped
        ],
    }
    return report, [*(files.finding() for files in index.skipped), *_cropping(cropped, len(sample))]


def _cropping(cropped: dict[str, float], images: int) -> list[Finding]:
    """How much of the images is lost where they are cropped to a square."""
    if not cropped:
        return []
    worst = max(cropped, key=lambda name: cropped[name])
    average = sum(cropped.values()) / len(cropped)
    message = (
        f"{len(cropped)} of {images} images are not square and are cropped to their central square: "
        f"{average:.0%} of their pixels are cut off on average, most of {worst} ({cropped[worst]:.0%})"
    )
    much = sum(cropped.values()) >= MUCH_CROPPED * images
    hint = "check on the contact sheet that the object is in the middle; else pad or crop the files yourself"
    return [Finding(check="cropping", severity="warning" if much else "info", message=message, hint=hint)]


def _class_findings(counts: dict[str, tuple[int, ...]], classes: tuple[str, ...]) -> list[Finding]:
    findings = []
    for name, hint in (
        ("training", "add images of them, or remove them from the classes"),
        ("test", "add test images of them"),
    ):
        by_class = [*counts[name], *[0] * (len(classes) - len(counts[name]))]
        missing = tuple(one for one, count in zip(classes, by_class, strict=True) if not count)
        if missing:
            message = f"{len(missing)} of {len(classes)} classes have no {name} images: {_examples(missing)}"
            findings.append(Finding(check="missing_classes", severity="warning", message=message, hint=hint, places=missing))
    return findings


def _sample(split: Split) -> tuple[Tensor, Tensor]:
    """Images and labels of a split; of a streamed one the first STREAMED_SAMPLE."""
    if split.stream is None:
        return split.images.cpu(), split.labels.cpu()
    indices = torch.arange(min(STREAMED_SAMPLE, len(split)))
    batches = list(split.batches(indices.split(64)))
    if not batches:
        return split.images.cpu(), split.labels.cpu()
    return torch.cat([images.cpu() for images, _ in batches]), split.labels.cpu()[indices]


def _names(config: DatasetConfig, source: DatasetSource) -> dict[str, list[str]]:
    """Names of the files of every split in its order; empty where images have no files of their own."""
    if not dataset_of(source.name).has_image_files:
        return {}
    index = datasets.file_index(source)
    splits = split_indices(config, torch.tensor(index.train_labels), torch.tensor(index.test_labels))
    named = zip(("training", "validation", "test"), (index.train, index.train, index.test), splits, strict=True)
    return {split: [printable(names[position]) for position in indices.tolist()] for split, names, indices in named}


def _duplicates(
    samples: dict[str, tuple[Tensor, Tensor]], classes: tuple[str, ...], names: dict[str, list[str]]
) -> tuple[dict[str, Any], list[Finding]]:
    """Images of equal pixels: between the splits, within the training split, and under different labels."""

    def name_of(split: str, index: int, label: int) -> str:
        return f"{split} {names[split][index]}" if names else f"{split} image {index} ({classes[label]})"

    members: dict[bytes, list[tuple[str, int, int]]] = {}  # digest -> split, index, label
    for split, (images, labels) in samples.items():
        for index, (digest, label) in enumerate(zip(_digests(images), labels.tolist(), strict=True)):
            members.setdefault(digest, []).append((split, index, label))
    groups = [group for group in members.values() if len(group) > 1]
    report: dict[str, Any] = {"train_test": 0, "train_validation": 0, "within_training": 0, "other_label": 0, "examples": []}
    examples: dict[str, list[str]] = {}
    for group in groups:
        by_split = Counter(split for split, _, _ in group)
        example = " = ".join(name_of(*member) for member in group[:EXAMPLES])
        for kind, number in (
            ("train_test", by_split["test"] if by_split["training"] or by_split["validation"] else 0),
            ("train_validation", by_split["validation"] if by_split["training"] else 0),
            ("within_training", max(0, by_split["training"] - 1)),
            ("other_label", len(group) if len({label for _, _, label in group}) > 1 else 0),
        ):
            report[kind] += number
            if number and len(examples.setdefault(kind, [])) < EXAMPLES:
                examples[kind].append(example)
    report["examples"] = examples
    rules = {
        "train_test": "test images are also in the training or validation split, so test accuracy is too high",
        "train_validation": "validation images are also in the training split, so validation accuracy is too high",
        "within_training": "training images are copies of others",
        "other_label": "images with equal pixels have different labels",
    }
    findings = [
        Finding(
            check=f"duplicates_{kind}",
            severity="info" if kind == "within_training" else "warning",
            message=f"{report[kind]} {rule}: {'; '.join(examples[kind])}",
            hint="" if kind == "within_training" else "remove one of each pair",
        )
        for kind, rule in rules.items()
        if report[kind]
    ]
    return report, findings


def _digests(images_NCHW: Tensor) -> Iterator[bytes]:
    for image in images_NCHW.contiguous().numpy():
        yield hashlib.blake2b(image.data, digest_size=16).digest()


def _constant(samples: dict[str, tuple[Tensor, Tensor]], names: dict[str, list[str]]) -> list[Finding]:
    """Channels that are the same in all training images, and images of one colour."""
    findings = []
    images = samples["training"][0]
    channels = [
        str(channel)
        for channel in range(images.shape[1])
        if len(images) and images[:, channel].amin() == images[:, channel].amax()
    ]
    if channels:
        message = f"channels that have one value in all training images: {', '.join(channels)}"
        hint = "the network learns nothing from them; check how the images were written"
        places = tuple(channels)
        findings.append(Finding(check="constant_channels", severity="warning", message=message, hint=hint, places=places))
    for split, (pixels, _) in samples.items():
        is_constant = [
            (chunk.flatten(2) == chunk.flatten(2)[:, :, :1]).flatten(1).all(1) for chunk in pixels.split(CHUNK) if len(chunk)
        ]
        indices = torch.cat(is_constant).nonzero().flatten().tolist() if is_constant else []
        if indices:
            named = [names[split][index] if names else f"image {index}" for index in indices]
            message = f"{len(indices)} {split} images are of one colour, such as {_examples(named)}"
            hint = "check that the files are complete"
            findings.append(Finding(check="constant_images", severity="warning", message=message, hint=hint))
    return findings


def _scales(samples: dict[str, tuple[Tensor, Tensor]]) -> list[Finding]:
    """Test images on another scale than training images, such as 0 to 1 instead of 0 to 255."""
    largest = {name: int(samples[name][0].max()) for name in ("training", "test") if samples[name][0].numel()}
    if len(largest) < 2 or max(largest.values()) < SCALE_RATIO * max(1, min(largest.values())):
        return []
    message = f"training images have values up to {largest['training']}, test images up to {largest['test']}"
    return [Finding(check="scales", severity="warning", message=message, hint="write both on the same scale, 0 to 255")]


def _examples(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names[:EXAMPLES]) + (", ..." if len(names) > EXAMPLES else "")


def class_names(source: DatasetSource, facts: DataFacts) -> tuple[str, ...]:
    """Names of the classes for display; a custom data set has only labels."""
    return tuple(f"class {name}" for name in facts.classes) if is_custom(source.name) else facts.classes
