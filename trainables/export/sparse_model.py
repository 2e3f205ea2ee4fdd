"""The file of a sparse model, and `load_sparse_model()` to use it.

The file is safetensors compressed with zstd: a packed bit mask and the kept values of every prunable weight, all other tensors
dense, and metadata to run the network. Of a network that lost channels it holds the weights that remain. A weight that
keeps N of every M along its input channels is stored in the layout of sparse hardware: input channels last, kept values
(rows, N/M of the columns), and its name in `patterns`. The file has no time, host or revision: equal trials give equal files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from trainables.channels.resizing import resize, resize_layers
from trainables.custom.references import is_custom
from trainables.data.normalization import EVALUATION_BATCH
from trainables.export.model_card import ModelCard, card_fields, card_of
from trainables.export.model_input import validated_images
from trainables.pruning.masks import Masks
from trainables.runtime.files import safetensors_metadata
from trainables.runtime.hashing import tensors_sha256
from trainables.runtime.json_text import parse_json
from trainables.runtime.sizes import require_room, unpack_zstd

# A file has the lowest one that holds it, which older readers know.
PLAIN, WITH_PATTERNS, SMALLER, SPIKING, SMALLER_WITH_MASKS = FORMATS = (1, 2, 3, 4, 5)
KEPT_CHANNELS = ("rows", "columns")  # of a weight, as tensors beside it: output and input channels that remain
BYTES_OF_A_WEIGHT = 5  # dense: the value and its mask


@dataclass(frozen=True, kw_only=True, slots=True)
class SparseModel:
    """A loaded sparse model: the network in eval mode on the CPU, pruned weights zero, and its masks.

    Attributes:
        patterns: "N:M" of the weights that keep N of every M along their input channels, by name.
        memory_format: of the images that the network takes.
    """

    network: nn.Module
    masks: Masks
    patterns: dict[str, str]
    card: ModelCard
    sha256: str
    memory_format: torch.memory_format = torch.channels_last

    def predict(self, images: Any) -> Tensor:
        """Class scores float32 (N, classes) of images (N, C, H, W) in 0..1, not normalised: a tensor or array of floats.

        It uses the batches and the memory format of the trial's evaluation, so on the same machine the scores of a trial in
        fp32 are identical.

        Raises:
            ValueError: the images are others, for example uint8; the message names the fix.
        """
        images_NCHW = validated_images(images, self.card.image_shape)
        if not len(images_NCHW):
            return torch.empty(0, self.card.num_classes)
        with torch.inference_mode():
            batches = (self.card.normalization.apply(batch) for batch in images_NCHW.split(EVALUATION_BATCH))
            return torch.cat([self.network(batch.contiguous(memory_format=self.memory_format)).float() for batch in batches])


def encode(model: nn.Module, masks: Masks, card: ModelCard, pattern: str | None = None) -> tuple[bytes, str]:
    """The content of the file and its model_sha256, a hash over the sorted names, shapes and bytes of its tensors.

    Args:
        pattern: "N:M" that every pruned weight keeps along its input channels.
    """
    import zstandard

    patterns = {name: pattern for name, mask in masks.items() if pattern and not bool(mask.all())}
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        values = tensor.detach().cpu().contiguous()
        if name in masks:
            mask = masks[name].cpu()
            if name in patterns:
                values, mask = values.movedim(1, -1).contiguous(), mask.movedim(1, -1).contiguous()
                _check_pattern(mask, patterns[name])
            tensors[f"{name}.mask"] = _packed(mask)
            tensors[f"{name}.kept"] = values[mask].view(len(mask), -1) if name in patterns else values[mask]
        else:
            tensors[name] = values
    shapes = {name: list(mask.shape) for name, mask in masks.items()}
    header = _header(WITH_PATTERNS if patterns else PLAIN, card, shapes) | ({"patterns": patterns} if patterns else {})
    content = save(tensors, {"header": json.dumps(header, sort_keys=True)})
    return zstandard.ZstdCompressor(level=3, write_checksum=True).compress(content), tensors_sha256(tensors)


def encode_smaller(network: nn.Module, masks: Masks, card: ModelCard) -> tuple[bytes, str]:
    """The same for a network whose channels were removed: which rows and columns of the weights remain, and their values.

    A weight is dense unless its mask has zeros among them, as of implants; it is then a bit mask and the kept values.

    Args:
        masks: of the weights before the removal.
    """
    import zstandard

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    masked = []
    for name, mask in masks.items():
        by_channel = _by_channel(mask.cpu())
        kept = [by_channel.any(1 - dim).nonzero().flatten() for dim in range(2)]
        remaining = mask.cpu()[kept[0]][:, kept[1]]
        assert remaining.shape == tensors[name].shape, f"{name} has other channels than its mask"
        tensors |= {f"{name}.{suffix}": one.to(torch.int32) for suffix, one in zip(KEPT_CHANNELS, kept, strict=True)}
        if not bool(remaining.all()):
            masked.append(name)
            values = tensors.pop(name)
            tensors |= {f"{name}.mask": _packed(remaining), f"{name}.kept": values[remaining]}
    shapes = {name: list(mask.shape) for name, mask in masks.items()}
    header = _header(SMALLER_WITH_MASKS if masked else SMALLER, card, shapes) | ({"masked": masked} if masked else {})
    content = save(tensors, {"header": json.dumps(header, sort_keys=True)})
    return zstandard.ZstdCompressor(level=3, write_checksum=True).compress(content), tensors_sha256(tensors)


def _header(layout: int, card: ModelCard, shapes: dict[str, list[int]]) -> dict[str, Any]:
    """The header; a spiking network has a format of its own beside its layout, since older readers would run it with ReLUs."""
    fields = {"format": layout, "card": card_fields(card), "shapes": shapes}
    return fields | {"format": SPIKING, "layout": layout} if card.spiking.is_on else fields


def _by_channel(mask: Tensor) -> Tensor:
    """For each output and input channel whether the mask keeps a weight between them, bool (outputs, inputs)."""
    return mask.flatten(2).any(2) if mask.dim() > 2 else mask


def _packed(mask: Tensor) -> Tensor:
    """The bits of a mask, uint8."""
    return torch.from_numpy(np.packbits(mask.numpy().reshape(-1)))


def _check_pattern(mask_channels_last: Tensor, pattern: str) -> None:
    n, m = (int(number) for number in pattern.split(":"))
    assert bool((mask_channels_last.view(-1, m).sum(1) == n).all()), f"not {pattern} along the input channels"


def load_sparse_model(file: str | Path | bytes) -> SparseModel:
    """The model of a file's path or content, ready for `predict`.

    Raises:
        ValueError: the file is not a sparse model, is damaged, or is of a newer format; or the module of a custom network
            cannot be imported.
    """
    header, tensors = _unpacked(file)
    sha256 = tensors_sha256(tensors)
    masks, dense = _decoded(file, header, tensors)
    with _misfits_named(file):
        card, patterns = card_of(header["card"]), header.get("patterns", {})
    smaller = header["layout"] in (SMALLER, SMALLER_WITH_MASKS)
    if smaller:
        masks = {name: _remaining(mask) for name, mask in masks.items()}
    network = _network(file, card, dense, smaller)
    memory_format = _set_memory_format(network.eval(), card)
    return SparseModel(network=network, masks=masks, patterns=patterns, card=card, sha256=sha256, memory_format=memory_format)


def _set_memory_format(network: nn.Module, card: ModelCard) -> torch.memory_format:
    """Converts the network to channels last, unless a custom one does not support it, and returns its memory format."""
    try:
        network.to(memory_format=torch.channels_last)
        if is_custom(card.model):
            with torch.inference_mode():
                network(torch.zeros(2, *card.image_shape).contiguous(memory_format=torch.channels_last))
    except RuntimeError:  # a view of a map, or a parameter of five dimensions
        network.to(memory_format=torch.contiguous_format)
        return torch.contiguous_format
    return torch.channels_last


def stored_sha256(file: str | Path | bytes) -> str:
    """The model_sha256 of a file's path or content, without its network. Raises as `load_sparse_model` does."""
    return tensors_sha256(_unpacked(file)[1])


def load_masks(file: str | Path | bytes) -> Masks:
    """The masks of a file's path or content alone, without its network. Raises as `load_sparse_model` does."""
    return _decoded(file, *_unpacked(file))[0]


@contextmanager
def _misfits_named(file: str | Path | bytes) -> Iterator[None]:
    """Whatever a part of the file leads to that is not as `encode` wrote it becomes a ValueError that names the file."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{'content' if isinstance(file, bytes) else file} is not a sparse model file: {error}") from error


def _unpacked(file: str | Path | bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header and the stored tensors."""
    content = file if isinstance(file, bytes) else Path(file).read_bytes()
    with _misfits_named(file):
        plain = unpack_zstd(content, checksum=True)
        tensors = load(plain)
        header: dict[str, Any] = parse_json(safetensors_metadata(plain)["header"])
        version = int(header["format"])
        header["layout"] = int(header["layout"]) if version == SPIKING else version
    if version > max(FORMATS):
        raise ValueError(f"sparse model format {version} is newer than {max(FORMATS)}; update drive-sweep")
    return header, tensors


def _decoded(file: str | Path | bytes, header: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[Masks, dict[str, Tensor]]:
    """The masks in the shapes before any removal, and all tensors of the network in dense form."""
    if header["layout"] in (SMALLER, SMALLER_WITH_MASKS):
        return _decoded_smaller(file, header, tensors)
    masks: Masks = {}
    dense = dict(tensors)
    with _misfits_named(file):
        patterns: dict[str, str] = header.get("patterns", {})
        require_room(sum(math.prod(shape) * BYTES_OF_A_WEIGHT for shape in header["shapes"].values()), "the dense network")
        for name, shape in header["shapes"].items():
            stored = [shape[0], *shape[2:], shape[1]] if name in patterns else shape
            mask, values = _unpacked_weight(name, stored, dense)
            if name in patterns:
                values, mask = values.movedim(-1, 1).contiguous(), mask.movedim(-1, 1).contiguous()
            masks[name], dense[name] = mask, values
    return masks, dense


def _unpacked_weight(name: str, shape: list[int], stored: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The mask of a weight and its values, zero where pruned; takes the packed form out of `stored`."""
    packed, kept = stored.pop(f"{name}.mask"), stored.pop(f"{name}.kept").reshape(-1)
    if len(packed) != -(-math.prod(shape) // 8):
        raise ValueError(f"{name} has {len(packed)} bytes of mask bits for {shape}")
    mask = torch.from_numpy(np.unpackbits(packed.numpy(), count=math.prod(shape)).astype(bool)).view(shape)
    if len(kept) != int(mask.sum()):
        raise ValueError(f"{name} has {len(kept)} values for the {int(mask.sum())} weights that its mask keeps")
    return mask, torch.zeros(shape, dtype=kept.dtype).masked_scatter_(mask, kept)


def _remaining(mask: Tensor) -> Tensor:
    """The mask of a weight without the rows and columns that it has lost whole."""
    by_channel = _by_channel(mask)
    return mask[by_channel.any(1)][:, by_channel.any(0)]


def _decoded_smaller(
    file: str | Path | bytes, header: dict[str, Any], tensors: dict[str, Tensor]
) -> tuple[Masks, dict[str, Tensor]]:
    masks: Masks = {}
    dense = dict(tensors)
    with _misfits_named(file):
        masked = header.get("masked", ())
        sizes = {name: math.prod(shape) for name, shape in header["shapes"].items()}
        require_room(sum(size * (BYTES_OF_A_WEIGHT if name in masked else 1) for name, size in sizes.items()), "the masks")
        for name, shape in header["shapes"].items():
            rows, columns = (dense.pop(f"{name}.{suffix}").long() for suffix in KEPT_CHANNELS)
            within: Tensor | bool = True
            if name in masked:
                within, dense[name] = _unpacked_weight(name, [len(rows), len(columns), *shape[2:]], dense)
            if (len(rows), len(columns)) != dense[name].shape[:2] or min(rows.min(), columns.min()) < 0:
                raise ValueError(f"{name} has other channels than its rows and columns")
            masks[name] = torch.zeros(shape, dtype=torch.bool)
            masks[name][rows[:, None], columns] = within
            if _remaining(masks[name]).shape != dense[name].shape:
                raise ValueError(f"{name} has a row or column without a weight")
    return masks, dense


def _network(file: str | Path | bytes, card: ModelCard, dense: dict[str, Tensor], smaller: bool) -> nn.Module:
    """The network with its weights; a built-in one takes memory only if it has the shapes that the file holds.

    Args:
        smaller: whether the file may hold fewer channels.
    """
    if is_custom(card.model):
        network = card.network()
        with _misfits_named(file):
            resize(network, dense) if smaller else network.load_state_dict(dense)
        return network
    with _misfits_named(file):
        network = card.network()
        if smaller:
            resize_layers(network, dense)
        if _shapes(network.state_dict()) != _shapes(dense):
            raise ValueError(f"its tensors are not those of {card.model}")
        network = network.to_empty(device="cpu")
        network.load_state_dict(dense)
    return network


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in tensors.items()}
