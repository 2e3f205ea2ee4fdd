"""Initial weights of a network from a dense checkpoint of the user's.

The file is safetensors, or a state dict written by torch.save; it is read without executing any code in it.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor, nn

from trainables.custom.files import CustomFiles, local_path, unreadable_file
from trainables.custom.references import WEIGHTS, sha256
from trainables.errors import ConfigError
from trainables.wording import listed, one_line

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights")  # keys of checkpoints, in order of priority
PRUNED, MASK = "_orig", "_mask"  # suffixes of a weight under torch.nn.utils.prune
MAX_WEIGHT = 1e15  # beyond it float32 overflows in the next product
MAX_NAMES = 10  # of tensors or keys in one message


def load_initial_weights(network: nn.Module, custom_files: CustomFiles) -> None:
    """Replaces every parameter and buffer of the network by those of the file.

    Raises:
        ConfigError: the file is missing, is not the one that was planned with, or does not fit the network.
    """
    file, planned = local_path(str(custom_files.initial_weights)), custom_files.digests[WEIGHTS]
    try:
        content = Path(file).read_bytes()
    except OSError as error:
        raise unreadable_file(WEIGHTS, file, error) from error
    if sha256(content) != planned:
        raise ConfigError(
            f"initial_weights must be the file that the sweep was planned with (SHA-256 {planned[:12]}), got {file!r} with "
            f"{sha256(content)[:12]}",
            "run the sweep again, or give this machine the same file",
        )
    expected = network.state_dict()
    weights = read_state_dict(content, file)
    if not any(name.endswith(MASK) for name in expected):
        weights = _under_masks(weights)
    weights = _with_names_of(expected, weights)
    _require_fit(weights, expected, file)
    _require_usable(weights, expected, file)
    network.load_state_dict(weights)


def read_state_dict(content: bytes, file: str) -> dict[str, Tensor]:
    try:
        if content[8:9] == b"{":  # after the length of its header
            return load(content)
        checkpoint: Any = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # readers of damaged files raise errors of many types
        raise ConfigError(
            f"initial_weights must be safetensors or a state dict saved by torch.save, got {file!r}: {one_line(error)}",
            "save network.state_dict()",
        ) from error
    weights = _unwrapped(checkpoint)
    if weights is None:
        got = f"{type(checkpoint).__name__} without tensors"
        if isinstance(checkpoint, dict) and checkpoint:
            got = f"the keys {listed(checkpoint, MAX_NAMES)}"
        raise ConfigError(
            f"initial_weights must be a state dict of tensors, alone or under one of {', '.join(WRAPPERS)}, got {file!r} with "
            f"{got}",
            "save network.state_dict()",
        )
    for name, value in weights.items():
        if value.layout != torch.strided or value.is_quantized:
            kind = "quantised" if value.is_quantized else "sparse"
            raise ConfigError(
                f"initial_weights: {name} of {file!r} must be a dense tensor, got a {kind} one",
                "save it after to_dense() or dequantize()",
            )
    return weights


def _unwrapped(checkpoint: Any) -> dict[str, Tensor] | None:
    """The state dict of a checkpoint: itself, or under one of WRAPPERS; None if there is none."""
    for _ in range(3):  # a checkpoint inside a checkpoint
        if not isinstance(checkpoint, dict):
            return None
        if checkpoint and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in checkpoint.items()):
            return dict(checkpoint)
        checkpoint = next((checkpoint[key] for key in WRAPPERS if isinstance(checkpoint.get(key), dict)), None)
    return None


def _under_masks(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights, with the product of NAME_orig and NAME_mask as NAME where torch.nn.utils.prune split a weight."""
    names = [name.removesuffix(PRUNED) for name in weights if name.endswith(PRUNED)]
    split = {name for name in names if name + MASK in weights and name not in weights}
    products = {name: weights[name + PRUNED] * weights[name + MASK] for name in split}
    factors = {name + suffix for name in split for suffix in (PRUNED, MASK)}
    return {name: value for name, value in weights.items() if name not in factors} | products


def _with_names_of(expected: dict[str, Tensor], weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights without the prefix that a wrapper (DataParallel, torch.compile, Lightning) put before every name.

    Missing counters of batches, which older versions of PyTorch did not save and which have no effect, become zero.
    """
    known = next(iter(expected))
    prefixes = {name.removesuffix(known) for name in weights if name.endswith("." + known)}
    for prefix in prefixes:
        if known not in weights and all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    counters = {name: torch.zeros_like(value) for name, value in expected.items() if name.endswith("num_batches_tracked")}
    return counters | weights


def _require_fit(weights: dict[str, Tensor], expected: dict[str, Tensor], file: str) -> None:
    problems = {
        "missing": [name for name in expected if name not in weights],
        "unexpected": [name for name in weights if name not in expected],
        "of another shape": [
            f"{name} {tuple(weights[name].shape)} for {tuple(value.shape)}"
            for name, value in expected.items()
            if name in weights and weights[name].shape != value.shape
        ],
    }
    counts = [f"{len(names)} {kind} ({listed(names, MAX_NAMES)})" for kind, names in problems.items() if names]
    if counts:
        raise ConfigError(
            f"initial_weights must hold the {len(expected)} tensors of the network, got {file!r} with {'; '.join(counts)}",
            "save the state dict of this very network",
        )


def _require_usable(weights: dict[str, Tensor], expected: dict[str, Tensor], file: str) -> None:
    """Rejects weights that PyTorch would copy without an error, but that no training can start from."""
    for name, value in weights.items():
        dtype = expected[name].dtype
        if value.is_floating_point() != dtype.is_floating_point or value.is_complex() != dtype.is_complex:
            raise ConfigError(f"initial_weights: {name} of {file!r} must be {dtype}, got {value.dtype}", "save float32 weights")
        if value.is_floating_point() and not (finite := value.isfinite()).all():
            raise ConfigError(
                f"initial_weights: {name} of {file!r} must be finite, got {int((~finite).sum())} of {value.numel()} that are "
                "NaN or infinite",
                "give a checkpoint from before the training diverged",
            )
        if value.numel() and value.is_floating_point() and (largest := float(value.abs().max())) > MAX_WEIGHT:
            raise ConfigError(
                f"initial_weights: {name} of {file!r} must be weights of a trained network, got {largest:.3g} in it",
                "give a checkpoint from before the training diverged",
            )
