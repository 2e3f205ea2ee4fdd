"""The checkpoint of a trial: its exact state as one file with a checksum.

The file is safetensors: weights, BN buffers, momentum, masks and what the method's updater needs; the position, seconds and all
metric points up to it as metadata, and a SHA-256 of both. Warm-up snapshots have the same format. No pickle is read or written.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from trainables.config.automatic import Choice
from trainables.config.trial import TrainingConfig
from trainables.pruning.masks import Masks
from trainables.records.checkpoint_header import checkpoint_header, read_checkpoint_header
from trainables.records.metrics import MetricLog, points_from_json
from trainables.runtime.hashing import tensors_sha256
from trainables.runtime.json_text import parse_json
from trainables.training.optimizer import make_optimizer, momentum_of


class DamagedCheckpointError(Exception):
    """The file is truncated, altered or of another format, so the trial cannot continue from it."""


@dataclass(kw_only=True)
class TrialState:
    """The state of a trial after `position` epochs or rounds of `phase`.

    Attributes:
        phase: "warmup", "prune" (rounds), "level" (epochs of all levels of iterative magnitude pruning) or "train".
        layer_scores: mean and spread of the last round's scores by layer.
        choices: what the trial chose itself, by key of its configuration.
        coefficients: weights of the layers' errors that SPDY has found, by name; empty without a search.
        updater: what the method has besides the network during the sparse training, by name (MaskUpdater.finish).
    """

    model: nn.Module
    optimizer: torch.optim.SGD
    masks: Masks = field(default_factory=dict)
    phase: str = "warmup"
    position: int = 0
    metrics: MetricLog = field(default_factory=MetricLog)
    seconds: dict[str, float] = field(default_factory=lambda: {"warmup": 0.0, "prune": 0.0, "train": 0.0})
    fingerprints: list[dict[str, Any]] = field(default_factory=list)
    layer_scores: dict[str, dict[str, float]] = field(default_factory=dict)
    choices: dict[str, Choice] = field(default_factory=dict)
    coefficients: dict[str, float] = field(default_factory=dict)
    updater: dict[str, Tensor] = field(default_factory=dict)


def to_bytes(state: TrialState, key: str) -> bytes:
    """The content of the checkpoint of a trial or warm-up with this key."""
    tensors = {f"model.{name}": tensor for name, tensor in state.model.state_dict().items()}
    tensors |= {f"momentum.{name}": tensor for name, tensor in momentum_of(state.optimizer, state.model).items()}
    tensors |= {f"mask.{name}": mask for name, mask in state.masks.items()}
    tensors |= {f"updater.{name}": tensor for name, tensor in state.updater.items()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata: dict[str, Any] = {
        "key": key,
        "phase": state.phase,
        "position": state.position,
        "seconds": state.seconds,
        "fingerprints": state.fingerprints,
        "layer_scores": state.layer_scores,
        "metrics": [point.to_json() for point in state.metrics.points()],
    }
    if state.choices:
        metadata["choices"] = {key: choice.to_json() for key, choice in state.choices.items()}
    if state.coefficients:
        metadata["coefficients"] = state.coefficients
    state_json = json.dumps(metadata)
    return save(tensors, checkpoint_header(state_json, _checksum(tensors, state_json)))


def from_bytes(content: bytes, model: nn.Module, training: TrainingConfig, key: str) -> TrialState:
    """The state of a checkpoint, with its weights loaded into `model`.

    Raises:
        DamagedCheckpointError: the file is not whole, is of another trial or warm-up, or does not fit the network.
    """
    try:
        tensors, metadata = _whole(content, key)
        groups: dict[str, dict[str, Tensor]] = {"model": {}, "momentum": {}, "mask": {}, "updater": {}}
        for name, tensor in tensors.items():
            group, _, weight = name.partition(".")
            groups[group][weight] = tensor
        model.load_state_dict(groups["model"])
        device = next(model.parameters()).device
        in_order = [name for name, _ in model.named_parameters() if name in groups["mask"]]  # a loaded file has no order
        return TrialState(
            model=model,
            optimizer=make_optimizer(model, training, groups["momentum"]),
            masks={name: groups["mask"][name].to(device) for name in in_order},
            phase=metadata["phase"],
            position=metadata["position"],
            metrics=MetricLog(points_from_json(point) for point in metadata["metrics"]),
            seconds=metadata["seconds"],
            fingerprints=metadata["fingerprints"],
            layer_scores=metadata.get("layer_scores", {}),
            updater={name: tensor.to(device) for name, tensor in groups["updater"].items()},
            choices={key: Choice(**choice) for key, choice in metadata.get("choices", {}).items()},
            coefficients=metadata.get("coefficients", {}),
        )
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError, RuntimeError, AssertionError) as error:
        raise DamagedCheckpointError(f"not a whole checkpoint: {error}") from error


def checkpoint_damage(content: bytes, key: str) -> str:
    """What is wrong with a checkpoint or a snapshot of the trial or warm-up; empty if it is as it was written."""
    try:
        _whole(content, key)
    except DamagedCheckpointError as error:
        return str(error)
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError, RuntimeError, AssertionError) as error:
        return f"not a whole checkpoint: {error}"
    return ""


def _whole(content: bytes, key: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the metadata of a checkpoint.

    Raises:
        DamagedCheckpointError: it does not match its SHA-256, or is of another trial or warm-up.
        SafetensorError, KeyError, ValueError, TypeError, AttributeError: it is no checkpoint.
    """
    tensors = load(content)
    state_json, digest = read_checkpoint_header(content)
    if _checksum(tensors, state_json) != digest:
        raise DamagedCheckpointError("the content does not match its SHA-256")
    metadata = parse_json(state_json)
    if metadata.get("key", key) != key:  # older files do not name it
        raise DamagedCheckpointError(f"it is of {metadata['key']}")
    return tensors, metadata


def _checksum(tensors: dict[str, Tensor], state_json: str) -> str:
    return hashlib.sha256(f"{tensors_sha256(tensors)}\0{state_json}".encode()).hexdigest()
