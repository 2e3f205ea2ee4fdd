"""What is wrong or odd in a data set as a configuration splits it: counts, files, duplicates, constant pixels, missing classes.

Images count as duplicates where their decoded pixels are equal; nearly equal ones are not looked for.
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
from trainables.data.splits import Data, Split, class_counts, split_indices
from trainables.findings import Finding

VERSION = 2  # raised when the report of the same data changes
HEADERS = 2000  # files whose headers are read
STREAMED_SAMPLE = 256  # images of a split that is not decoded as a whole
EXAMPLES = 3
OTHER_SCALE = 8  # times the largest value of the other split
OF_FILES = ("image_folder", "tiny_imagenet", "imagenet")  # data sets with one file for each image
MUCH_CUT_OFF = 0.2  # of the pixels of an average image
CHUNK = 4096


def data_report(config: DatasetConfig, source: datasets.DatasetSource, facts: DataFacts, data: Data) -> dict[str, Any]:
    """The report as JSON: "splits", "files", "duplicates", "findings" and more."""
    splits = {"training": data.train, "validation": data.validation, "test": data.test}
    counts = {name: class_counts(split.labels.cpu()) for name, split in splits.items()}
    files, findings = _files(source)
    findings += _class_findings(counts, facts.classes)
    samples = {name: _sample(split) for name, split in splits.items()}
    duplicates, found = _duplicates(samples, facts.classes, _names(config, source))
    findings += found
    findings += _constant(samples, _names(config, source))
    findings += _scales(samples)
    complete = all(len(images) == len(splits[name]) for name, (images, _) in samples.items())
    if not complete:
        message = f"pixels were looked at in the first {STREAMED_SAMPLE} images of each split alone, and duplicates among these"
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


def _files(source: datasets.DatasetSource) -> tuple[dict[str, Any] | None, list[Finding]]:
    """Sizes and modes of the image files, from the headers of at most HEADERS of them; what is no part of the data set."""
    if source.name not in OF_FILES:
        return None, []
    from PIL import Image

    listing = datasets.listing(source)
    names = [*listing.train, *listing.test]
    looked_at = names[:: max(1, -(-len(names) // HEADERS))]
    sizes: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    cut_off: dict[str, float] = {}  # share of the pixels outside the middle square, of images that are not square
    for name in looked_at:
        with Image.open(listing.root / name) as image:
            sizes[f"{image.width} x {image.height}"] += 1
            kinds[f"{image.format} {image.mode}"] += 1
            if image.width != image.height:
                cut_off[name] = 1 - min(image.size) / max(image.size)
    facts = {
        "number": len(names),
        "headers_read": len(looked_at),
        "sizes": dict(sizes.most_common(12)),
        "other_sizes": len(sizes) - min(12, len(sizes)),
        "kinds": dict(kinds.most_common()),
        "left_out": [{"reason": one.reason, "count": one.count, "examples": list(one.examples)} for one in listing.skipped],
    }
    return facts, [*(one.finding() for one in listing.skipped), *_cropping(cut_off, len(looked_at))]


def _cropping(cut_off: dict[str, float], looked_at: int) -> list[Finding]:
    """How much of the images is lost where they are cut to a square."""
    if not cut_off:
        return []
    worst = max(cut_off, key=lambda name: cut_off[name])
    average = sum(cut_off.values()) / len(cut_off)
    message = (
        f"{len(cut_off)} of {looked_at} images are not square, of which the network sees the middle square alone: "
        f"{average:.0%} of their pixels are left out on average, most of {worst} ({cut_off[worst]:.0%})"
    )
    much = sum(cut_off.values()) >= MUCH_CUT_OFF * looked_at
    hint = "see on the contact sheet whether what counts is in the middle; else pad or cut the files yourself"
    return [Finding(check="cropping", severity="warning" if much else "info", message=message, hint=hint)]


def _class_findings(counts: dict[str, tuple[int, ...]], classes: tuple[str, ...]) -> list[Finding]:
    found = []
    for name, hint in (
        ("training", "add images of them, or leave them out of the classes"),
        ("test", "add test images of them"),
    ):
        by_class = [*counts[name], *[0] * (len(classes) - len(counts[name]))]
        missing = tuple(one for one, count in zip(classes, by_class, strict=True) if not count)
        if missing:
            message = f"{len(missing)} of {len(classes)} classes have no {name} images: {_some(missing)}"
            found.append(Finding(check="missing_classes", severity="warning", message=message, hint=hint, places=missing))
    return found


def _sample(split: Split) -> tuple[Tensor, Tensor]:
    """Images and labels of a split; of a streamed one the first few."""
    if split.stream is None:
        return split.images.cpu(), split.labels.cpu()
    places = torch.arange(min(STREAMED_SAMPLE, len(split)))
    batches = list(split.batches(places.split(64)))
    if not batches:
        return split.images.cpu(), split.labels.cpu()
    return torch.cat([images.cpu() for images, _ in batches]), split.labels.cpu()[places]


def _names(config: DatasetConfig, source: datasets.DatasetSource) -> dict[str, list[str]]:
    """Names of the files of every split in its order; nothing where images do not lie in files of their own."""
    if source.name not in OF_FILES:
        return {}
    listing = datasets.listing(source)
    chosen = split_indices(config, torch.tensor(listing.train_labels), torch.tensor(listing.test_labels))
    named = zip(("training", "validation", "test"), (listing.train, listing.train, listing.test), chosen, strict=True)
    return {split: [printable(names[place]) for place in places.tolist()] for split, names, places in named}


def _duplicates(
    samples: dict[str, tuple[Tensor, Tensor]], classes: tuple[str, ...], names: dict[str, list[str]]
) -> tuple[dict[str, Any], list[Finding]]:
    """Images of equal pixels: between the splits, within the training split, and under different labels."""

    def called(split: str, place: int, label: int) -> str:
        return f"{split} {names[split][place]}" if names else f"{split} image {place} ({classes[label]})"

    members: dict[bytes, list[tuple[str, int, int]]] = {}  # digest -> split, place, label
    for name, (images, labels) in samples.items():
        for place, (digest, label) in enumerate(zip(_digests(images), labels.tolist(), strict=True)):
            members.setdefault(digest, []).append((name, place, label))
    groups = [group for group in members.values() if len(group) > 1]
    facts: dict[str, Any] = {"train_test": 0, "train_validation": 0, "within_training": 0, "other_label": 0, "examples": []}
    examples: dict[str, list[str]] = {}
    for group in groups:
        by_split = Counter(name for name, _, _ in group)
        shown = " = ".join(called(*member) for member in group[:EXAMPLES])
        for kind, number in (
            ("train_test", by_split["test"] if by_split["training"] or by_split["validation"] else 0),
            ("train_validation", by_split["validation"] if by_split["training"] else 0),
            ("within_training", max(0, by_split["training"] - 1)),
            ("other_label", len(group) if len({label for _, _, label in group}) > 1 else 0),
        ):
            facts[kind] += number
            if number and len(examples.setdefault(kind, [])) < EXAMPLES:
                examples[kind].append(shown)
    facts["examples"] = examples
    rules = {
        "train_test": "test images are also in the training or validation split, so test accuracy is too high",
        "train_validation": "validation images are also in the training split, so validation accuracy is too high",
        "within_training": "training images are copies of others",
        "other_label": "images with equal pixels have different labels",
    }
    found = [
        Finding(
            check=f"duplicates_{kind}",
            severity="info" if kind == "within_training" else "warning",
            message=f"{facts[kind]} {rule}: {'; '.join(examples[kind])}",
            hint="" if kind == "within_training" else "remove one of each pair",
        )
        for kind, rule in rules.items()
        if facts[kind]
    ]
    return facts, found


def _digests(images_NCHW: Tensor) -> Iterator[bytes]:
    for image in images_NCHW.contiguous().numpy():
        yield hashlib.blake2b(image.data, digest_size=16).digest()


def _constant(samples: dict[str, tuple[Tensor, Tensor]], names: dict[str, list[str]]) -> list[Finding]:
    """Channels that are the same in all training images, and images of one colour."""
    found = []
    images = samples["training"][0]
    channels = [
        str(channel)
        for channel in range(images.shape[1])
        if len(images) and images[:, channel].amin() == images[:, channel].amax()
    ]
    if channels:
        message = f"channels that have one value in all training images: {', '.join(channels)}"
        hint = "the network learns nothing from them; check how the images were written"
        found.append(Finding(check="constant_channels", severity="warning", message=message, hint=hint, places=tuple(channels)))
    for name, (pixels, _) in samples.items():
        flat = [
            (chunk.flatten(2) == chunk.flatten(2)[:, :, :1]).flatten(1).all(1) for chunk in pixels.split(CHUNK) if len(chunk)
        ]
        places = torch.cat(flat).nonzero().flatten().tolist() if flat else []
        if places:
            some = [names[name][place] if names else f"image {place}" for place in places]
            message = f"{len(places)} {name} images are of one colour, such as {_some(some)}"
            hint = "check that they were written as a whole"
            found.append(Finding(check="constant_images", severity="warning", message=message, hint=hint))
    return found


def _scales(samples: dict[str, tuple[Tensor, Tensor]]) -> list[Finding]:
    """Test images that are written on another scale than training images, such as 0 to 1 beside 0 to 255."""
    largest = {name: int(samples[name][0].max()) for name in ("training", "test") if samples[name][0].numel()}
    if len(largest) < 2 or max(largest.values()) < OTHER_SCALE * max(1, min(largest.values())):
        return []
    message = f"training images have values up to {largest['training']}, test images up to {largest['test']}"
    return [Finding(check="scales", severity="warning", message=message, hint="write both on the same scale, 0 to 255")]


def _some(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names[:EXAMPLES]) + (", ..." if len(names) > EXAMPLES else "")


def class_names(source: datasets.DatasetSource, facts: DataFacts) -> tuple[str, ...]:
    """Names to show; of a custom data set they are its labels."""
    return tuple(f"class {name}" for name in facts.classes) if is_custom(source.name) else facts.classes
