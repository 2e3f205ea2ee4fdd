"""Files of tensors: sparse models, checkpoints, the record of an automatic warm-up, and weights that a user gives."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import zstandard

from tests.fuzz.choices import Choices
from tests.fuzz.edits import damaged, json_edit, with_other_value
from tests.fuzz.sample import Sample
from tests.support.trials import tiny_config
from trainables.config.automatic import Choice
from trainables.config.keys import canonical
from trainables.custom.references import sha256
from trainables.data.normalization import Normalization
from trainables.errors import ConfigError
from trainables.export.model_card import ModelCard
from trainables.export.sparse_model import encode, load_masks, load_sparse_model
from trainables.models.pretrained import read_state_dict
from trainables.models.prunable import prunable_weights
from trainables.models.registry import build_model, initialize
from trainables.pruning.masks import Masks
from trainables.records.self_digest import with_digest
from trainables.runtime.hashing import tensors_sha256
from trainables.training.optimizer import make_optimizer
from trainables.trial.checkpoint import DamagedCheckpointError, TrialState, from_bytes, to_bytes
from trainables.trial.mask_stability import MaskHistory
from trainables.trial.warmup_record import decode_rule, encode_rule

SHAPE, CLASSES, KEY = (1, 8, 8), 10, "0123456789abcdef"
Bytes = Callable[[bytes], bytes]


def samples(folder: Path) -> list[Sample]:
    config = tiny_config()
    network = build_model("convnet", SHAPE, CLASSES)
    initialize(network, 0)
    weights = dict(network.state_dict())
    prunable = {name: weight.detach() for name, weight in prunable_weights(network).items()}
    unstructured: Masks = {name: weight.abs() > weight.abs().median() for name, weight in prunable.items()}
    patterned = {name: two_of_four(weight) for name, weight in prunable.items()}
    normalization = Normalization(mean=(0.25,), std=(0.5,))
    card = ModelCard(
        model="convnet", image_shape=SHAPE, num_classes=CLASSES, normalization=normalization, config=canonical(config)
    )
    model = encode(network, unstructured, card)[0]
    pattern = encode(network, patterned, card, "2:4")[0]
    state = TrialState(model=network, optimizer=make_optimizer(network, config.training, {}), masks=unstructured)
    state.metrics.record(1, {"val/accuracy": 0.5})
    checkpoint = to_bytes(state, KEY)
    history = MaskHistory(window=2)
    for _ in range(2):
        history.add(unstructured)

    def read_checkpoint(content: bytes) -> Any:
        fresh = build_model("convnet", SHAPE, CLASSES)
        return to_bytes(from_bytes(content, fresh, config.training, KEY), KEY)

    def read_rule(content: bytes) -> Any:
        rule = decode_rule(content, KEY, 2, prunable)
        if rule is None:
            return None
        return ([tensors_sha256(masks) for masks in rule[0].masks], rule[0].readings, rule[1:])

    def read_weights(content: bytes) -> Any:
        return tensors_sha256(read_state_dict(content, "dense.pt"))

    pickled = io.BytesIO()
    torch.save({"model": weights, "epoch": 3}, pickled)
    whole = packed_edit(unpack=zstandard.decompress, pack=zstandard.ZstdCompressor(write_checksum=True).compress)
    return [
        Sample(name="model", content=model, read=read_model, errors=(ValueError,), edit=whole),
        Sample(name="pattern", content=pattern, read=read_model, errors=(ValueError,), edit=whole),
        Sample(
            name="masks",
            content=model,
            read=lambda content: tensors_sha256(load_masks(content)),
            errors=(ValueError,),
            edit=whole,
        ),
        Sample(name="frame", content=model, read=read_model, errors=(ValueError,), edit=frame_edit),
        Sample(
            name="checkpoint", content=checkpoint, read=read_checkpoint, errors=(DamagedCheckpointError,), edit=tensors_edit
        ),
        Sample(name="rule", content=encode_rule(KEY, history, None, 1.0), read=read_rule, edit=record_edit),
        Sample(
            name="chosen rule",
            content=encode_rule(KEY, history, Choice(value=2, reason="stable"), 1.0),
            read=read_rule,
            edit=record_edit,
        ),
        Sample(
            name="weights", content=checkpoint, read=read_weights, errors=(ConfigError,), edit=tensors_edit, is_checked=False
        ),
        Sample(name="torch weights", content=pickled.getvalue(), read=read_weights, errors=(ConfigError,), is_checked=False),
    ]


def two_of_four(weight: torch.Tensor) -> torch.Tensor:
    """A mask that keeps two of every four weights along the input channels; all, where they are no multiple of four."""
    if weight.shape[1] % 4:
        return torch.ones_like(weight, dtype=torch.bool)
    mask = torch.zeros_like(weight, dtype=torch.bool)
    mask[:, 0::4], mask[:, 1::4] = True, True
    return mask


def read_model(content: bytes) -> Any:
    model = load_sparse_model(content)
    return model.sha256, tensors_sha256(dict(model.network.state_dict())), model.card, model.patterns, str(model.memory_format)


def packed_edit(unpack: Bytes, pack: Bytes) -> Callable[[bytes, Choices], bytes]:
    """Edits of the tensors and the header in a compressed file."""
    return lambda content, choices: pack(tensors_edit(unpack(content), choices))


def frame_edit(content: bytes, choices: Choices) -> bytes:
    """A zstd frame that claims another length (RFC 8878, 3.1.1.1)."""
    size = (0, 1, 2**16, 2**31, 2**40, 2**62)[choices.number(6)]
    body = content[4 + 1 + (2 if content[4] >> 6 == 1 else 4) :]  # behind magic number, descriptor and length
    return content[:4] + bytes([content[4] & 0x3F | 0xC0]) + struct.pack("<Q", size) + body


def tensors_edit(content: bytes, choices: Choices) -> bytes:
    """A safetensors file with other metadata, another layout of tensors, or other values in them."""
    length = int.from_bytes(content[:8], "little")
    header, data = content[8 : 8 + length], content[8 + length :]
    action = choices.number(4)
    if action == 0:
        data = damaged(data, choices)
    elif action == 1:
        header = json_edit(header, choices)
    else:
        values = json.loads(header)
        names = sorted(values["__metadata__"])
        name = names[choices.number(len(names))]
        if name.endswith("sha256"):
            values["__metadata__"][name] = "0" * 64
        else:
            values["__metadata__"][name] = json.dumps(with_other_value(json.loads(values["__metadata__"][name]), choices))
        if "state_sha256" in names and name == "state":
            values["__metadata__"]["state_sha256"] = sha256(values["__metadata__"][name].encode())
        header = json.dumps(values).encode()
    return struct.pack("<Q", len(header)) + header + data


def record_edit(content: bytes, choices: Choices) -> bytes:
    """A record with another value and a digest that matches it."""
    value = with_other_value({name: field for name, field in json.loads(content).items() if name != "record_sha256"}, choices)
    return json.dumps(with_digest(value) if isinstance(value, dict) else value).encode()
