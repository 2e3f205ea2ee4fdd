"""The file of a sparse model, and `load_sparse_model()` to use it.

The file is safetensors compressed with zstd: a packed bit mask and the kept values of every prunable weight, all other tensors
dense, and metadata to run the network. A weight that keeps N of every M along its input channels is stored in the layout of
sparse hardware: input channels last, kept values (rows, N/M of the columns), and its name in `patterns`. The file has no time,
host or revision, so equal trials give equal files.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from trainables.custom.imports import bundled_function
from trainables.custom.references import is_custom
from trainables.data.normalization import EVALUATION_BATCH, Normalization
from trainables.export.model_input import validated_images
from trainables.models.custom_network import build_custom_network
from trainables.models.registry import build_model
from trainables.pruning.masks import Masks
from trainables.runtime.files import safetensors_metadata
from trainables.runtime.hashing import tensors_sha256

FORMAT = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelCard:
    """The metadata to run the weights: network, input, classes, and the configuration of the trial.

    Attributes:
        source_sha256: of the source file of a custom network.
    """

    model: str
    image_shape: tuple[int, int, int]
    num_classes: int
    normalization: Normalization
    config: dict[str, Any]
    source_sha256: str | None = None


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
            tensors[f"{name}.mask"] = torch.from_numpy(np.packbits(mask.numpy().reshape(-1)))
            tensors[f"{name}.kept"] = values[mask].view(len(mask), -1) if name in patterns else values[mask]
        else:
            tensors[name] = values
    shapes = {name: list(mask.shape) for name, mask in masks.items()}
    # Without patterns a file is as version 1 wrote it.
    header = {"format": FORMAT if patterns else 1, "card": _card_fields(card), "shapes": shapes}
    header |= {"patterns": patterns} if patterns else {}
    content = save(tensors, {"header": json.dumps(header, sort_keys=True)})
    return zstandard.ZstdCompressor(level=3, write_checksum=True).compress(content), tensors_sha256(tensors)


def _check_pattern(mask_channels_last: Tensor, pattern: str) -> None:
    n, m = (int(number) for number in pattern.split(":"))
    assert bool((mask_channels_last.view(-1, m).sum(1) == n).all()), f"not {pattern} along the input channels"


def _card_fields(card: ModelCard) -> dict[str, Any]:
    """The fields of the card; without None, so that files of built-in networks are those of older versions."""
    return {name: value for name, value in asdict(card).items() if value is not None}


def load_sparse_model(file: str | Path | bytes) -> SparseModel:
    """The model of a file's path or content, ready for `predict`.

    Raises:
        ValueError: the file is not a sparse model, is damaged, or is of a newer format; or the module of a custom network
            cannot be imported.
    """
    header, tensors = _unpacked(file)
    sha256 = tensors_sha256(tensors)
    masks, dense = _decoded(header, tensors)
    fields = header["card"]
    normalization = Normalization(**{name: tuple(values) for name, values in fields["normalization"].items()})
    card = ModelCard(
        **fields | {"normalization": normalization, "image_shape": tuple(fields["image_shape"])},
    )
    network = _network(card)
    network.load_state_dict(dense)
    memory_format = _set_memory_format(network.eval(), card)
    patterns = header.get("patterns", {})
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
    header, tensors = _unpacked(file)
    try:
        return _decoded(header, tensors)[0]
    except (KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"not a sparse model file: {error}") from error


def _unpacked(file: str | Path | bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header and the stored tensors."""
    import zstandard

    content = file if isinstance(file, bytes) else Path(file).read_bytes()
    try:
        plain = zstandard.ZstdDecompressor().decompress(content)
        tensors = load(plain)
        header = json.loads(safetensors_metadata(plain)["header"])
    except Exception as error:
        raise ValueError(f"{'content' if isinstance(file, bytes) else file} is not a sparse model file: {error}") from error
    if header["format"] > FORMAT:
        raise ValueError(f"sparse model format {header['format']} is newer than {FORMAT}; update drive-sweep")
    return header, tensors


def _decoded(header: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[Masks, dict[str, Tensor]]:
    """The masks, and all tensors in dense form, in the shapes of the network."""
    masks: Masks = {}
    dense = dict(tensors)
    patterns: dict[str, str] = header.get("patterns", {})
    for name, shape in header["shapes"].items():
        stored = [shape[0], *shape[2:], shape[1]] if name in patterns else shape
        bits = np.unpackbits(dense.pop(f"{name}.mask").numpy(), count=int(np.prod(shape))).astype(bool)
        mask, kept = torch.from_numpy(bits).view(stored), dense.pop(f"{name}.kept")
        values = torch.zeros(stored, dtype=kept.dtype).masked_scatter_(mask, kept)
        if name in patterns:
            values, mask = values.movedim(-1, 1).contiguous(), mask.movedim(-1, 1).contiguous()
        masks[name], dense[name] = mask, values
    return masks, dense


def _network(card: ModelCard) -> nn.Module:
    if is_custom(card.model):
        function = bundled_function(card.model, str(card.source_sha256))
        return build_custom_network(card.model, function, card.image_shape, card.num_classes)
    return build_model(card.model, card.image_shape, card.num_classes, card.config.get("width", 1))
