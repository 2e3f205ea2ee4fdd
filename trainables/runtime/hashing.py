"""Hashes of tensors, equal on every machine and device."""

from __future__ import annotations

import hashlib

from torch import Tensor, uint8


def tensors_sha256(tensors: dict[str, Tensor]) -> str:
    """64 hex digits over sorted names, types, shapes and bytes of CPU tensors."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.contiguous().flatten().view(uint8).numpy().data)
    return digest.hexdigest()
