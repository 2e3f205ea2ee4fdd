"""Validation of a saved model's input; each error names the rule and the fix. Travels with every model."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

ROUNDING = 1e-3  # accepted distance outside 0..1, since half precision and resizing round


def validated_images(images: Any, image_shape: tuple[int, int, int]) -> Tensor:
    """Float32 images (N, C, H, W) on the CPU, from a tensor, an array or nested lists of floats in any memory order.

    Raises:
        ValueError: the values are not floats in 0..1, not finite, or of another shape than the network's images.
    """
    values = _tensor(images)
    expected = ("N", *image_shape)
    if values.dim() != 4 or tuple(values.shape[1:]) != image_shape:
        raise _error(f"have the shape {_text(expected)}", f"shape {_text(values.shape)}", _shape_hint(values, image_shape))
    if not values.is_floating_point():
        hint = "divide by 255" if values.dtype == torch.uint8 else "give floats, 0..255 divided by 255"
        raise _error("be floats in 0..1", str(values.dtype).removeprefix("torch."), hint)
    if values.numel():
        low, high = values.amin().item(), values.amax().item()  # NaN passes both comparisons below
        if not bool(values.isfinite().all()):
            raise _error("be finite", "NaN or infinity", "look for it with torch.isfinite")
        if low < -ROUNDING or high > 1 + ROUNDING:
            hint = "give them as they were before normalisation, the model normalises" if low < 0 else "divide by 255"
            raise _error("be floats in 0..1", f"values from {low:.4g} to {high:.4g}", hint)
    return values.float()


def _tensor(images: Any) -> Tensor:
    """The unchanged values as a tensor on the CPU."""
    if isinstance(images, Tensor):
        return images.detach().cpu()
    if isinstance(images, list | tuple) and any(isinstance(one, Tensor) for one in images):
        images = [one.detach().cpu().numpy() if isinstance(one, Tensor) else one for one in images]
    try:
        array = np.asarray(images)
        if array.dtype.kind == "u" and array.dtype.itemsize > 1:  # PyTorch supports few operations on these
            array = array.astype(np.int64)
        return torch.from_numpy(np.array(array, order="C", dtype=array.dtype.newbyteorder("=")))
    except (TypeError, ValueError) as error:
        hint = "give a numpy array or a tensor"
        raise _error("be numbers of one shape", f"{type(images).__name__} ({error})", hint) from error


def _shape_hint(values: Tensor, image_shape: tuple[int, int, int]) -> str:
    channels, height, width = image_shape
    if tuple(values.shape) == image_shape:
        return "add the dimension of the batch, images[None]"
    if tuple(values.shape[-3:]) == (height, width, channels):
        return "put channels first, numpy.moveaxis(images, -1, -3)"
    if values.dim() == 3 and channels == 1 and tuple(values.shape[1:]) == (height, width):
        return "add the dimension of the channel, images[:, None]"
    return "scale and crop them as for the training"


def _error(rule: str, got: str, hint: str) -> ValueError:
    return ValueError(f"images must {rule}, got {got}; {hint}")


def _text(shape: Any) -> str:
    return f"({', '.join(str(size) for size in shape)})"
