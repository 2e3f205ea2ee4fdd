"""What a user's data function returns -> tensors, or the refusal with the rule and the fix.

Arrays of NumPy, PyTorch or lists, of any memory order and byte order, are taken; images must be uint8 (N, C, H, W), since
neither a scale nor a memory order of channels can be guessed without the risk of a wrong one.
"""

from __future__ import annotations

import operator
import sys
from typing import TYPE_CHECKING, Any

from trainables.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_COLOURS = 4  # channels of an image that has colours, and maybe transparency


def checked_arrays(reference: str, returned: tuple[Any, Any, Any, Any], num_classes: Any) -> tuple[list[Any], int]:
    """Train images, train labels, test images, test labels as arrays uint8 (N, C, H, W) and int64 (N,); the number of classes.

    Args:
        returned: the four arrays, as the function gives them.

    Raises:
        DataError: they are something else.
    """
    import numpy as np

    count = _checked_count(reference, num_classes)
    parts: list[Any] = []
    for split, images, labels in (("train", *returned[:2]), ("test", *returned[2:])):
        arrays = [_array(reference, f"{split}_{name}", value) for name, value in (("images", images), ("labels", labels))]
        _check_images(reference, split, arrays[0])
        parts += [arrays[0], _checked_labels(reference, split, arrays[1], len(arrays[0]), count)]
    train, test = parts[0].shape[1:], parts[2].shape[1:]
    if train != test:
        raise _refusal(reference, "test images of the shape of its training images", f"{test} and {train}")
    if len(set(parts[1].tolist())) < 2:
        raise _refusal(reference, "training images of two classes or more", f"label {int(parts[1][0])} alone")
    for place, part in enumerate(parts):  # the node's cache takes no two tensors in the same memory
        if any(np.may_share_memory(part, before) for before in parts[:place]):
            parts[place] = part.copy()
    return parts, count


def _refusal(reference: str, rule: str, got: object, fix: str = "correct it") -> DataError:
    return DataError(f"dataset: {reference} must return {rule}, got {got}; {fix}")


def _checked_count(reference: str, num_classes: Any) -> int:
    try:
        count = operator.index(num_classes)  # of Python, NumPy or PyTorch
    except (TypeError, ValueError, RuntimeError):
        count = 0
    if count < 2 or isinstance(num_classes, bool):
        raise _refusal(reference, "num_classes as an integer from 2 on", repr(num_classes))
    return count


def _array(reference: str, what: str, value: Any) -> NDArray[Any]:
    """A contiguous array in the machine's byte order, of numbers or truth values."""
    import numpy as np

    torch = sys.modules.get("torch")  # whoever returns tensors has imported it, which takes a second
    try:
        if torch and isinstance(value, list | tuple) and value and isinstance(value[0], torch.Tensor):
            value = torch.stack([torch.as_tensor(one) for one in value])
        array = value.detach().cpu().numpy() if torch and isinstance(value, torch.Tensor) else np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise _refusal(reference, f"{what} as an array", f"{type(error).__name__}: {error}") from error
    if array.dtype.kind not in "biufc":
        raise _refusal(reference, f"{what} as an array of numbers", f"{array.dtype} of shape {array.shape}")
    # A copy where PyTorch would share memory that cannot be written.
    return np.require(array, dtype=array.dtype.newbyteorder("="), requirements=["C", "W"])


def _check_images(reference: str, split: str, images: NDArray[Any]) -> None:
    shape, rule = images.shape, f"{split}_images as uint8 of shape (N, C, H, W)"
    got = f"{images.dtype} of shape {shape}"
    if 0 in shape[:1]:
        raise _refusal(reference, f"at least one image in {split}_images", "none")
    if images.ndim == 3:
        raise _refusal(reference, rule, got, "images of one channel are images[:, None]")
    if images.ndim != 4 or not images.size:
        raise _refusal(reference, rule, got)
    if _looks_channels_last(shape):
        fix = "give images.transpose(0, 3, 1, 2)"
        seen = f"{got}, which looks like (N, H, W, C)"
        raise _refusal(reference, rule, seen, f"{fix}, or, where they are {shape[3]} wide, images.transpose(0, 1, 3, 2)")
    if images.dtype.name != "uint8":
        raise _refusal(reference, rule, got, _fix_of_values(images))


def _looks_channels_last(shape: tuple[int, ...]) -> bool:
    """Whether images of (N, A, B, C) can hardly be A channels: C is a number of colours, or A x B is a square and B x C none.

    Up to four channels are always taken as they are. What is refused wrongly can be given with height and width swapped.
    """
    _, first, second, third = shape
    return first > MOST_COLOURS and (third <= MOST_COLOURS or first == second != third)


def _fix_of_values(images: NDArray[Any]) -> str:
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


def _checked_labels(reference: str, split: str, labels: NDArray[Any], count: int, num_classes: int) -> NDArray[Any]:
    """int64 (N,)."""
    import numpy as np

    rule = f"{split}_labels as integers of shape ({count},)"
    got = f"{labels.dtype} of shape {labels.shape}"
    if labels.shape != (count,):
        fix = "correct it"
        if labels.shape == (count, 1):
            fix = "give labels[:, 0]"
        elif labels.shape == (count, num_classes):
            fix = "if each row has a one for its class, give labels.argmax(1)"
        raise _refusal(reference, rule, got, fix)
    if labels.dtype.kind not in "iu":
        raise _refusal(reference, rule, got, 'if they are the numbers of the classes, give labels.astype("int64")')
    low, high = int(labels.min()), int(labels.max())
    if not 0 <= low <= high < num_classes:
        fix = "subtract 1, since classes count from 0" if (low, high) == (1, num_classes) else "correct it"
        raise _refusal(reference, f"{split}_labels in 0..{num_classes - 1}", f"{low}..{high}", fix)
    return labels.astype(np.int64)
