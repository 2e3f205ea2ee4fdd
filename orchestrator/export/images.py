"""The images on which an exported model is compared with the trial's: test images of the sweep, else random ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from orchestrator.planning.known_data import known_data
from orchestrator.spec.schema import SweepSpec
from orchestrator.storage.base import Storage
from trainables.config.keys import from_canonical
from trainables.config.trial import TrialConfig
from trainables.custom.references import is_custom
from trainables.data import datasets
from trainables.data.source import DatasetSource
from trainables.data.table import dataset_of
from trainables.errors import TrialError
from trainables.wording import counted

if TYPE_CHECKING:
    from torch import Tensor

MOST = 500  # images
FEWEST = 16
MULTIPLY_ADDS = 5e10  # of all images, so that a large network is compared in seconds, on fewer images
UNKNOWN_COST = 64  # images, where multiply-adds are not known


@dataclass(frozen=True, kw_only=True)
class ComparedImages:
    """Float32 images (N, C, H, W) in 0..1.

    Attributes:
        labels: (N,) of test images.
        whole: whether they are all test images of the trial.
        what: in words, with the reason where they are random.
    """

    images: Tensor
    labels: Tensor | None
    whole: bool
    what: str


def compared_images(spec: SweepSpec, storage: Storage, result: dict[str, Any]) -> ComparedImages:
    """Test images of the trial's data where these are on this machine and unchanged, else seeded random images."""
    import torch

    count = _count(result.get("flops"))
    source = replace(spec.source(), download=False)
    if reason := _missing(source, spec, storage, result):
        images = torch.rand(count, *result["image_shape"], generator=torch.Generator().manual_seed(0))
        what = f"{counted(count, 'random image')}, since {reason}"
        return ComparedImages(images=images, labels=None, whole=False, what=what)
    from trainables.data.splits import load_data

    config = from_canonical(TrialConfig, result["config"])
    test = load_data(config.dataset, source, "cpu").test
    indices = torch.linspace(0, len(test) - 1, min(count, len(test))).round().long()  # files are often sorted by class
    ((images, labels),) = test.batches([indices])
    what = (
        f"{len(indices):,} of the {len(test):,} test images" if len(indices) < len(test) else f"all {len(test):,} test images"
    )
    return ComparedImages(images=images.float() / 255, labels=labels, whole=len(indices) == len(test), what=what)


def _count(multiply_adds: float | None) -> int:
    if not multiply_adds:
        return UNKNOWN_COST
    return max(FEWEST, min(MOST, int(MULTIPLY_ADDS / multiply_adds)))


def _missing(source: DatasetSource, spec: SweepSpec, storage: Storage, result: dict[str, Any]) -> str:
    """Why the trial's data are not at hand; empty if they are."""
    dataset = dataset_of(source.name)
    name = f"the data set {source.name}"
    try:
        slow = is_custom(source.name) or (dataset.has_image_files and not dataset.is_streamed)
        if slow and not datasets.is_whole(datasets.cache_file(source)):
            return f"{name} has not been decoded on this machine"
        digest, _ = known_data(storage, source, spec.custom_files(), hash_data=False)
        if digest is None and not dataset.has_image_files:
            digest = datasets.content_digest(source)
    except (TrialError, OSError) as error:
        return f"{name} is not on this machine ({error})"
    if digest is None:
        return f"the files of {name} here are not those that this storage has seen"
    return "" if digest == result.get("data_digest") else f"{name} here is not the trial's (another digest)"
