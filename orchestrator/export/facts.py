"""What is known about an exported model: the content of export.json, from which the model card is written."""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.export.images import ComparedImages
from orchestrator.export.selection import Selection, over_seeds
from orchestrator.recommendation.recommendation import VALIDATION
from orchestrator.recommendation.sentences import sentence
from orchestrator.version import source_revision
from trainables.config.keys import complete, flatten, from_canonical
from trainables.config.trial import TrialConfig
from trainables.custom.references import sha256
from trainables.export.table import ListedFormat
from trainables.runtime.machine import processor_name

if TYPE_CHECKING:
    from trainables.export.sparse_model import SparseModel
    from trainables.export.verification import Verification

TEST = "test/accuracy"


def facts_of(
    *,
    sweep: str,
    selection: Selection,
    listed: ListedFormat,
    model: SparseModel,
    images: ComparedImages,
    verification: Verification,
    code: str,
    files: list[Path],
    license_: str,
) -> dict[str, Any]:
    """The facts, as JSON."""
    result, card = selection.result, model.card
    config = from_canonical(TrialConfig, result["config"])
    return {
        "sweep": sweep,
        "trial": selection.trial.key,
        "name": selection.trial.name,
        "reason": selection.reason,
        "format": listed.name,
        "description": listed.description,
        "note": listed.note,
        "license": license_,
        "code": code,
        "network": {
            "name": card.model,
            "image_shape": list(card.image_shape),
            "num_classes": card.num_classes,
            "mean": list(card.normalization.mean),
            "std": list(card.normalization.std),
            "source_sha256": card.source_sha256,
        },
        "data": {"name": config.dataset.name, "digest": result.get("data_digest")},
        "method": config.method,
        "config": flatten(complete(config)),
        "seed": config.seed,
        "sparsity": {
            "requested": config.sparsity,
            "achieved": 1 - result["kept_weights"] / result["prunable_weights"],
            "prunable": result["prunable_weights"],
            "kept": result["kept_weights"],
            "parameters": result.get("parameters"),
            "kept_parameters": result.get("kept_parameters"),
            "emptied_layers": result.get("emptied_layers") or [],
        },
        "multiply_adds": {"dense": result.get("flops"), "kept": result.get("kept_flops")},
        "accuracy": {
            name: {"trial": result["metrics"].get(name), "seeds": over_seeds(selection, name)} for name in (VALIDATION, TEST)
        },
        "recommendation": sentence(selection.recommendation) if selection.recommendation else None,
        "model_sha256": model.sha256,
        "check": {
            "images": verification.images,
            "what": images.what,
            "max_difference": verification.max_difference,
            "accepted": verification.accepted,
            "equal_decisions": verification.equal_decisions,
            "correct": _correct(images, verification),
            "whole_test_set": images.whole,
        },
        "latency": [asdict(one) | {"verdict": one.verdict} for one in verification.latency],
        "processor": processor_name(),
        "files": [{"name": file.name, "bytes": file.stat().st_size, "sha256": sha256(file.read_bytes())} for file in files],
        "dense_bytes": sum(value.numel() * value.element_size() for value in model.network.state_dict().values()),
        "versions": {
            "exported by": {
                "drive-sweep": source_revision(),
                "python": platform.python_version(),
                **{name: version(name) for name in dict.fromkeys(("torch", *listed.packages))},
            },
            "trained by": {"drive-sweep": result.get("revision"), "device": result.get("device")},
        },
    }


def _correct(images: ComparedImages, verification: Verification) -> int | None:
    """Images that the exported model assigns to their class; None of random ones."""
    return None if images.labels is None else int((verification.decisions == images.labels).sum())
