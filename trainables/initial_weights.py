"""A dense checkpoint of the user's own -> the weights that a network starts from.

A file of safetensors, or a state dict that torch.save wrote; read without executing anything that it holds.
Read by: warmup.py.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor, nn

from trainables.failures import SettingError
from trainables.user_code import WEIGHTS, OwnFiles, on_this_node, sha256, unreadable_weights

WRAPPERS = ("state_dict", "model")  # under which training scripts save them
PARALLEL = "module."  # before every name, of a network that was wrapped in DataParallel


def load_initial_weights(network: nn.Module, own: OwnFiles) -> None:
    """Replaces every parameter and buffer of the network by those of the file.

    Raises:
        SettingError: the file is not there, is not the one that was planned with, or does not fit the network.
    """
    file, planned = on_this_node(str(own.initial_weights)), own.digests[WEIGHTS]
    try:
        content = Path(file).read_bytes()
    except OSError as error:
        raise unreadable_weights(file, error) from error
    if sha256(content) != planned:
        raise SettingError(
            f"initial_weights must be the file that the sweep was planned with (SHA-256 {planned[:12]}), got {file!r} with "
            f"{sha256(content)[:12]}; run the sweep again, or give this machine the same file"
        )
    weights, wanted = _state_dict(content, file), network.state_dict()
    if all(name.startswith(PARALLEL) for name in weights) and not all(name.startswith(PARALLEL) for name in wanted):
        weights = {name.removeprefix(PARALLEL): value for name, value in weights.items()}
    _refuse_misfits(weights, wanted, file)
    network.load_state_dict(weights)


def _state_dict(content: bytes, file: str) -> dict[str, Tensor]:
    try:
        if content[8:9] == b"{":  # after the length of its header
            return load(content)
        held: Any = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged file makes the readers raise has no one name
        told = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise SettingError(
            f"initial_weights must be safetensors or a state dict saved by torch.save, got {file!r}: {told}; "
            "save network.state_dict()"
        ) from error
    for wrapper in WRAPPERS:
        if isinstance(held, dict) and isinstance(held.get(wrapper), dict):
            held = held[wrapper]
    if not isinstance(held, dict) or not held or not all(isinstance(value, Tensor) for value in held.values()):
        raise SettingError(
            f"initial_weights must be a state dict of tensors, got {file!r} with {type(held).__name__}; "
            "save network.state_dict()"
        )
    return dict(held)


def _refuse_misfits(weights: dict[str, Tensor], wanted: dict[str, Tensor], file: str) -> None:
    missing = [name for name in wanted if name not in weights]
    unexpected = [name for name in weights if name not in wanted]
    mismatched = [
        f"{name} {tuple(weights[name].shape)} for {tuple(wanted[name].shape)}"
        for name in wanted
        if name in weights and weights[name].shape != wanted[name].shape
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": mismatched}
    told = [f"{len(names)} {kind}, first {names[0]}" for kind, names in kinds.items() if names]
    if told:
        raise SettingError(
            f"initial_weights must hold the {len(wanted)} tensors of the network, got {file!r} with {'; '.join(told)}; "
            "save the state dict of this very network"
        )
