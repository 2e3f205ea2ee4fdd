"""Compares an exported model with the trial's own, run in a process without this project by the code of its model card."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables.custom.references import is_custom
from trainables.data.normalization import EVALUATION_BATCH
from trainables.export import fresh_process
from trainables.export.format import Exported, Format
from trainables.export.latency import BATCHES, SECONDS, Latency, dense_models, summarize
from trainables.export.sparse_model import SparseModel

# Layers of custom networks, such as attention, may have kernels of their own that a graph does not take.
CUSTOM_TOLERANCE = 1e-4


class ExportFailedError(Exception):
    """The exported model does not load, or does not compute what the trial's model does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """An exported model beside the trial's own, on the same images.

    Attributes:
        images: how many.
        max_difference: largest absolute difference of a score; `accepted` is the largest that passes.
        equal_decisions: images for which both have the same highest score.
        decisions: class of each image by the exported model.
        latency: by number of images in a batch; empty if it was not measured.
    """

    images: int
    max_difference: float
    accepted: float
    equal_decisions: int
    decisions: Tensor
    latency: tuple[Latency, ...]


def verify(exported: Exported, model: SparseModel, images: Tensor, *, measure: bool) -> Verification:
    """The comparison.

    Args:
        model: the trial's own.
        images: float32 (N, C, H, W) in 0..1.
        measure: its latency too.

    Raises:
        ExportFailedError: it does not load, or a score differs by more than the format's tolerance.
    """
    with one_thread():
        expected, first = model.predict(images), model.predict(images[:1])
    with tempfile.TemporaryDirectory(prefix="drive-sweep-export-") as scratch:
        files = {name: str(Path(scratch, f"{name}.npy")) for name in ("images", "scores", "first_scores")}
        np.save(files["images"], images.numpy())
        dense = dense_models(exported, model, Path(scratch)) if measure else {}
        models = [*dense.values(), exported]
        request = files | {
            "models": [{"folder": str(one.folder.absolute()), "code": one.code} for one in models],
            "packages": sorted({name for one in models for name in one.packages}),
            "batch": EVALUATION_BATCH,
            "latency_batches": BATCHES if measure else [],
            "seconds": SECONDS,
        }
        answer = _ask(request)
        scores, first_scores = (
            torch.from_numpy(np.load(files[name], allow_pickle=False)) for name in ("scores", "first_scores")
        )
    difference, accepted = _difference(expected, scores, first, first_scores, tolerance_of(exported.format, model))
    labels = [*dense, f"exported, {exported.format.runtime}"]
    decisions = scores.argmax(1)
    return Verification(
        images=len(images),
        max_difference=difference,
        accepted=accepted,
        equal_decisions=int((decisions == expected.argmax(1)).sum()),
        decisions=decisions,
        latency=tuple(summarize(labels, int(size), times) for size, times in answer["latency"].items()),
    )


def tolerance_of(format_: Format, model: SparseModel) -> float:
    """How far a score may be from the trial's, as a share of the largest score."""
    return max(format_.tolerance, CUSTOM_TOLERANCE) if is_custom(model.card.model) else format_.tolerance


def _difference(expected: Tensor, scores: Tensor, first: Tensor, first_scores: Tensor, tolerance: float) -> tuple[float, float]:
    """The largest difference of a score, and the largest that passes."""
    if scores.shape != expected.shape or scores.dtype != torch.float32:
        raise ExportFailedError(f"it gives {scores.dtype} of shape {tuple(scores.shape)} and not {tuple(expected.shape)}")
    accepted = tolerance * float(expected.abs().max())
    difference = max(float((scores - expected).abs().max()), float((first_scores - first).abs().max()))
    if not difference <= accepted:  # also if it is not a number
        raise ExportFailedError(
            f"its scores differ from those of the trial's model by up to {difference:.3g}, and {accepted:.3g} is accepted"
        )
    return difference, accepted


def _ask(request: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, "-I", str(fresh_process.__file__)]
    done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or f"its process exited with {done.returncode}").splitlines()[-1]
        raise ExportFailedError(f"the code of its model card fails: {last}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@contextmanager
def one_thread() -> Iterator[None]:
    """The last bits of scores depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
