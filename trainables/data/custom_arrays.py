"""Validation of what a user's data function returns; each error names the rule and the fix.

Arrays of NumPy, PyTorch or lists, of any memory order and byte order, are accepted; images must be uint8 (N, C, H, W), since a
guess of their scale or of the axis of their channels might be wrong.
"""

from __future__ import annotations

import operator
import sys
from typing import TYPE_CHECKING, Any

from trainables.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_COLOURS = 4  # channels of an image, transparency included


def validated_arrays(reference: str, returned: tuple[Any, Any, Any, Any], num_classes: Any) -> tuple[list[Any], int]:
    """Train images, train labels, test images, test labels as arrays uint8 (N, C, H, W) and int64 (N,); the number of classes.

    Args:
        returned: the four arrays of the function.

    Raises:
        DataError: an array or the number breaks a rule.
    """
    import numpy as np

    count = _validated_count(reference, num_classes)
    arrays: list[Any] = []
    for split, images, labels in (("train", *returned[:2]), ("test", *returned[2:])):
        images_NCHW, labels_N = _array(reference, f"{split}_images", images), _array(reference, f"{split}_labels", labels)
        _check_images(reference, split, images_NCHW)
        arrays += [images_NCHW, _validated_labels(reference, split, labels_N, len(images_NCHW), count)]
    train, test = arrays[0].shape[1:], arrays[2].shape[1:]
    if train != test:
        raise _error(reference, "test images of the shape of its training images", f"{test} and {train}")
    if len(set(arrays[1].tolist())) < 2:
        raise _error(reference, "training images of two classes or more", f"label {int(arrays[1][0])} alone")
    for index, array in enumerate(arrays):  # safetensors saves no two arrays in the same memory
        if any(np.may_share_memory(array, other) for other in arrays[:index]):
            arrays[index] = array.copy()
    return arrays, count


def _error(reference: str, rule: str, got: object, hint: str = "correct it") -> DataError:
    return DataError(f"dataset: {reference} must return {rule}, got {got}", hint)


def _validated_count(reference: str, num_classes: Any) -> int:
    try:
        count = operator.index(num_classes)  # of Python, NumPy or PyTorch
    except (TypeError, ValueError, RuntimeError):
        count = 0
    if count < 2 or isinstance(num_classes, bool):
        raise _error(reference, "num_classes as an integer from 2 on", repr(num_classes))
    return count


def _array(reference: str, name: str, value: Any) -> NDArray[Any]:
    """A contiguous array in the machine's byte order, of numbers or booleans."""
    import numpy as np

    torch = sys.modules.get("torch")  # a function that returns tensors has imported it; importing it takes a second
    try:
        if torch and isinstance(value, list | tuple) and value and isinstance(value[0], torch.Tensor):
            value = torch.stack([torch.as_tensor(one) for one in value])
        array = value.detach().cpu().numpy() if torch and isinstance(value, torch.Tensor) else np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise _error(reference, f"{name} as an array", f"{type(error).__name__}: {error}") from error
    if array.dtype.kind not in "biufc":
        raise _error(reference, f"{name} as an array of numbers", f"{array.dtype} of shape {array.shape}")
    # A copy where PyTorch would share read-only memory.
    return np.require(array, dtype=array.dtype.newbyteorder("="), requirements=["C", "W"])


def _check_images(reference: str, split: str, images: NDArray[Any]) -> None:
    shape, rule = images.shape, f"{split}_images as uint8 of shape (N, C, H, W)"
    got = f"{images.dtype} of shape {shape}"
    if 0 in shape[:1]:
        raise _error(reference, f"at least one image in {split}_images", "none")
    if images.ndim == 3:
        raise _error(reference, rule, got, "images of one channel are images[:, None]")
    if images.ndim != 4 or not images.size:
        raise _error(reference, rule, got)
    if _looks_channels_last(shape):
        hint = f"give images.transpose(0, 3, 1, 2), or, where they are {shape[3]} wide, images.transpose(0, 1, 3, 2)"
        raise _error(reference, rule, f"{got}, which looks like (N, H, W, C)", hint)
    if images.dtype.name != "uint8":
        raise _error(reference, rule, got, _uint8_hint(images))


def _looks_channels_last(shape: tuple[int, ...]) -> bool:
    """Whether images of (N, A, B, C) can hardly have A channels: C is a number of colours, or A x B is a square and B x C not.

    Up to four channels are always accepted. Images that are rejected by mistake can be given with height and width swapped.
    """
    _, first, second, third = shape
    return first > MOST_COLOURS and (third <= MOST_COLOURS or first == second != third)


def _uint8_hint(images: NDArray[Any]) -> str:
    """How images of another dtype become uint8, by the range of their values."""
    import numpy as np

    if images.dtype.kind == "b":
        return 'give images.astype("uint8") * 255'
    if images.dtype.kind == "c" or not np.isfinite(images).all():
        return "give finite numbers from 0 to 255"
    low, high = images.min(), images.max()
    if images.dtype.kind == "f" and low >= 0 and high <= 1:
        return 'give (images * 255).round().astype("uint8")'
    if low >= 0 and high <= 255:
        return 'give images.round().astype("uint8")' if images.dtype.kind == "f" else 'give images.astype("uint8")'
    return f"their values are {low} to {high}: scale them to 0..255, the same way for training and test"


def _validated_labels(reference: str, split: str, labels: NDArray[Any], count: int, num_classes: int) -> NDArray[Any]:
    """The labels as int64 (N,)."""
    import numpy as np

    rule = f"{split}_labels as integers of shape ({count},)"
    got = f"{labels.dtype} of shape {labels.shape}"
    if labels.shape != (count,):
        hint = "correct it"
        if labels.shape == (count, 1):
            hint = "give labels[:, 0]"
        elif labels.shape == (count, num_classes):
            hint = "if each row has a one for its class, give labels.argmax(1)"
        raise _error(reference, rule, got, hint)
    if labels.dtype.kind not in "iu":
        raise _error(reference, rule, got, 'if they are the numbers of the classes, give labels.astype("int64")')
    low, high = int(labels.min()), int(labels.max())
    if not 0 <= low <= high < num_classes:
        hint = "subtract 1, since classes count from 0" if (low, high) == (1, num_classes) else "correct it"
        raise _error(reference, f"{split}_labels in 0..{num_classes - 1}", f"{low}..{high}", hint)
    return labels.astype(np.int64)
