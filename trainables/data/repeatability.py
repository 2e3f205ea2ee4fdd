"""Checks that a data function returns the same arrays on every call, by their digest.

A split that is drawn without a seed, or that follows the order of a folder, would move images between training and test from
one node or process to the next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

HEADER = "arrays_digest"  # in the metadata of a cache file


class ChangedArraysError(DataError):
    """A data function returned other arrays than on an earlier call."""


def arrays_digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    """32 hex digits over the names, types, shapes and contents of decoded images and labels."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()[:32]


def cached_digest(cache: Path) -> str | None:
    """The digest of the arrays in a whole cache file; None where they are not those of a data function."""
    from safetensors import safe_open

    with safe_open(cache, framework="numpy") as file:
        return (file.metadata() or {}).get(HEADER)


def require_same(name: str, before: str | None, now: str | None) -> None:
    """Compares the digests of two calls; does nothing if there was no earlier call.

    Raises:
        ChangedArraysError: the digests differ; the message names the usual causes.
    """
    if before not in (None, now):
        raise ChangedArraysError(
            f"dataset: {name} must return the same arrays in the same order on every call, got others (digest "
            f"{str(now)[:12]}) than before ({str(before)[:12]}), so images would move between training and test",
            "seed what it draws at random, sort what it lists, or save the split in a file. If other images are meant, change "
            "the function's file (a comment is enough, or its __version__ if it has one): then its trials get new keys",
        )
