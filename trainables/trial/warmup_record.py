"""The record of an automatic warm-up: what its rule read after each epoch, and the length that it chose.

Until it has chosen it holds the masks of the last epochs too, so that an interrupted warm-up goes on where it was.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
import zstandard
from torch import Tensor

from trainables.config.automatic import Choice
from trainables.pruning.masks import Masks, flattened
from trainables.records.self_digest import is_whole, with_digest
from trainables.runtime.json_text import parse_json
from trainables.runtime.sizes import unpack_zstd
from trainables.trial.mask_stability import MaskHistory, Reading


def encode_rule(key: str, history: MaskHistory, choice: Choice | None, seconds: float) -> bytes:
    """The content of the record.

    Args:
        key: of the rule.
        seconds: spent on scoring and comparing masks.
    """
    record = {
        "rule": key,
        "choice": None if choice is None else choice.to_json(),
        "readings": [asdict(reading) for reading in history.readings],
        "masks": [] if choice else [_packed(masks) for masks in history.masks],
        "seconds": seconds,
    }
    return json.dumps(with_digest(record), sort_keys=True).encode()


def decode_rule(
    content: bytes, key: str, window: int, compared: Mapping[str, Tensor]
) -> tuple[MaskHistory, Choice | None, float] | None:
    """What `encode_rule` was given; None if the record is damaged or of another rule.

    Args:
        compared: tensors with the shapes of the masks: of weights, or of their channels.
    """
    try:
        record: dict[str, Any] = parse_json(content)
        if not is_whole(record) or record["rule"] != key:
            return None
        choice = None if record["choice"] is None else Choice(**record["choice"])
        history = MaskHistory(
            window=window,
            masks=[_unpacked(text, compared) for text in record["masks"]],
            readings=[Reading(**reading) for reading in record["readings"]],
        )
        return history, choice, float(record["seconds"])
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None


def _packed(masks: Masks) -> str:
    bits = np.packbits(flattened(masks).cpu().numpy())
    return base64.b64encode(zstandard.compress(bits.tobytes())).decode()


def _unpacked(text: str, compared: Mapping[str, Tensor]) -> Masks:
    sizes = [tensor.numel() for tensor in compared.values()]
    size = -(-sum(sizes) // 8)
    packed = np.frombuffer(unpack_zstd(base64.b64decode(text), size), dtype=np.uint8)
    if len(packed) != size:
        raise ValueError("masks of another network")
    flat = torch.from_numpy(np.unpackbits(packed, count=sum(sizes)).astype(bool))
    layers = zip(compared.items(), flat.split(sizes), strict=True)
    return {name: layer.view(tensor.shape).to(tensor.device) for (name, tensor), layer in layers}
