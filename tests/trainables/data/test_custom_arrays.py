"""Arrays of data functions: other types are accepted, another layout or scale is rejected with a hint."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from trainables.data.custom_arrays import validated_arrays
from trainables.errors import DataError

IMAGES = np.arange(6 * 3 * 5 * 5, dtype=np.int64).reshape(6, 3, 5, 5).astype(np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])


def checked(images: Any = IMAGES, labels: Any = LABELS, num_classes: Any = 3) -> tuple[list[Any], int]:
    return validated_arrays("module:my.load", (images, labels, images, labels), num_classes)


def refusal(images: Any = IMAGES, labels: Any = LABELS, num_classes: Any = 3) -> str:
    with pytest.raises(DataError, match=r"^dataset: module:my\.load must return ") as caught:
        checked(images, labels, num_classes)
    return str(caught.value).removeprefix("dataset: module:my.load must return ")


def read_only(array: Any) -> Any:
    array = array.copy()
    array.setflags(write=False)
    return array


@pytest.mark.parametrize(
    "images",
    [
        IMAGES,
        IMAGES[::-1][::-1],
        np.asfortranarray(IMAGES),
        read_only(IMAGES),
        IMAGES.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2),
        torch.from_numpy(IMAGES),
        torch.from_numpy(IMAGES).contiguous(memory_format=torch.channels_last),
        list(IMAGES),
        [torch.from_numpy(image) for image in IMAGES],
        np.ma.masked_array(IMAGES),
    ],
    ids=["plain", "reversed", "fortran", "read only", "view", "torch", "channels last", "list", "list of tensors", "masked"],
)
@pytest.mark.filterwarnings("error")
def test_images_of_any_memory_order_are_accepted(images: Any) -> None:
    parts, _ = checked(images)
    assert parts[0].dtype == np.uint8
    assert np.array_equal(parts[0], IMAGES)


def test_arrays_that_share_memory_are_copied() -> None:
    images = np.arange(8 * 3 * 5 * 5, dtype=np.uint8).reshape(8, 3, 5, 5)
    for train, test in ((images, images), (images, images[2:]), (images[:6], images[2:])):
        arrays = (train, np.arange(len(train)) % 3, test, np.arange(len(test)) % 3)
        parts, _ = validated_arrays("module:my.load", arrays, 3)
        kept = load(save(dict(zip("abcd", parts, strict=True))))
        assert np.array_equal(kept["a"], train)
        assert np.array_equal(kept["c"], test)


@pytest.mark.parametrize("dtype", ["u1", "i1", "<u2", ">u2", "<u4", ">u4", "<i4", ">i4", "<i8", ">i8", "<u8", ">u8"])
def test_labels_of_any_integer_type_are_accepted(dtype: str) -> None:
    for labels in (LABELS.astype(dtype), np.repeat(LABELS, 2).astype(dtype)[::2], LABELS.tolist()):
        parts, _ = checked(labels=labels)
        assert parts[1].dtype == np.int64
        assert parts[1].tolist() == LABELS.tolist()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.uint16, torch.uint32, torch.uint64, torch.int32])
def test_labels_of_any_pytorch_integer_type_are_accepted(dtype: torch.dtype) -> None:
    assert checked(labels=torch.from_numpy(LABELS).to(dtype))[0][3].tolist() == LABELS.tolist()
    assert checked(labels=[torch.tensor(label, dtype=dtype) for label in LABELS.tolist()])[0][3].tolist() == LABELS.tolist()


@pytest.mark.parametrize("count", [3, np.int64(3), np.uint8(3), np.array(3), torch.tensor(3), np.max(LABELS) + 1])
def test_num_classes_may_be_any_integer_type(count: Any) -> None:
    assert checked(num_classes=count)[1] == 3
    assert type(checked(num_classes=count)[1]) is int


@pytest.mark.parametrize("count", [1, 0, -3, 3.0, "3", None, True, np.float64(3), np.array([3, 3]), torch.tensor(3.0)])
def test_invalid_num_classes_is_rejected(count: Any) -> None:
    assert refusal(num_classes=count).startswith(f"num_classes as an integer from 2 on, got {count!r}; correct it")


SMALL = np.zeros((6, 2, 3, 3), dtype=np.uint8)
WRONG_IMAGES: list[tuple[str, Any, str]] = [
    ("0 to 1", IMAGES / 255, '; give (images * 255).round().astype("uint8")'),
    ("0 to 255", IMAGES.astype(np.float32), '; give images.round().astype("uint8")'),
    ("integers", IMAGES.astype(np.int64), '; give images.astype("uint8")'),
    ("torch integers", torch.from_numpy(IMAGES).int(), '; give images.astype("uint8")'),
    ("16 bits", IMAGES.astype(np.uint16) * 257, "; their values are 0 to 65535: scale them to 0..255, the same way"),
    ("normalised", IMAGES / 127.5 - 1, "; their values are -1.0 to 1.0: scale them"),
    ("bool", IMAGES > 100, 'got bool of shape (6, 3, 5, 5); give images.astype("uint8") * 255'),
    ("NaN", np.where(IMAGES == 0, np.nan, IMAGES), "; give finite numbers from 0 to 255"),
    ("complex", IMAGES * 1j, "; give finite numbers from 0 to 255"),
    ("big-endian", IMAGES.astype(">f4"), '; give images.round().astype("uint8")'),
    ("no channel", IMAGES[:, 0], "got uint8 of shape (6, 5, 5); images of one channel are images[:, None]"),
    ("flat", IMAGES.reshape(6, -1), "train_images as uint8 of shape (N, C, H, W), got uint8 of shape (6, 75)"),
    ("five dimensions", IMAGES[None], "train_images as uint8 of shape (N, C, H, W), got uint8 of shape (1, 6, 3, 5, 5)"),
    ("none", IMAGES[:0], "at least one image in train_images, got none"),
    ("no pixels", IMAGES[:, :, :0], "got uint8 of shape (6, 3, 0, 5)"),
    ("objects", np.array([object()] * 6), "train_images as an array of numbers, got object of shape (6,)"),
    ("ragged", [np.zeros((3, 4, 4)), np.zeros((3, 5, 5))], "train_images as an array, got ValueError"),
    ("ragged tensors", [torch.zeros(3, 4, 4), torch.zeros(3, 5, 5)], "train_images as an array, got RuntimeError"),
    ("sparse", torch.zeros(6, 3, 5, 5).to_sparse(), "train_images as an array, got TypeError"),
    ("nothing", None, "train_images as an array of numbers, got object of shape ()"),
    ("text", "images.npy", "train_images as an array of numbers"),
]


@pytest.mark.parametrize(("images", "message"), [case[1:] for case in WRONG_IMAGES], ids=[case[0] for case in WRONG_IMAGES])
def test_invalid_images_are_rejected_with_a_hint(images: Any, message: str) -> None:
    assert message in refusal(images)


def test_hints_lead_to_accepted_images() -> None:
    for images in (IMAGES / 255, IMAGES.astype(np.float32), IMAGES.astype(np.int64), IMAGES[:, 0], IMAGES > 100):
        fixed = eval(refusal(images).rpartition("; ")[2].removeprefix("give ").removeprefix("images of one channel are "))
        assert checked(fixed if fixed.dtype == np.uint8 else fixed.astype(np.uint8))[1] == 3


WRONG_LABELS: list[tuple[str, Any, str]] = [
    ("column", LABELS[:, None], "train_labels as integers of shape (6,), got int64 of shape (6, 1); give labels[:, 0]"),
    ("one-hot", np.eye(3, dtype=int)[LABELS], "; if each row has a one for its class, give labels.argmax(1)"),
    ("too few", LABELS[:5], "train_labels as integers of shape (6,), got int64 of shape (5,)"),
    ("floats", LABELS.astype(float), '; if they are the numbers of the classes, give labels.astype("int64")'),
    ("bool", LABELS > 0, '; if they are the numbers of the classes, give labels.astype("int64")'),
    ("from 1", LABELS + 1, "train_labels in 0..2, got 1..3; subtract 1, since classes count from 0"),
    ("negative", LABELS - 1, "train_labels in 0..2, got -1..1"),
    ("wrapped", (LABELS - 1).astype(np.uint64), "train_labels in 0..2, got 0..18446744073709551615"),
    ("words", np.array(["cat", "dog"] * 3), "train_labels as an array of numbers, got <U3 of shape (6,)"),
    ("one class", np.zeros(6, dtype=int), "training images of two classes or more, got label 0 alone"),
]


@pytest.mark.parametrize(("labels", "message"), [case[1:] for case in WRONG_LABELS], ids=[case[0] for case in WRONG_LABELS])
def test_invalid_labels_are_rejected_with_a_hint(labels: Any, message: str) -> None:
    assert message in refusal(labels=labels)


# The memory order of channels

sides = st.integers(5, 40)


def of_shape(*shape: int) -> Any:
    return np.zeros((6, *shape), dtype=np.uint8)


@given(sides, sides, st.integers(1, 4))
def test_channels_last_is_rejected_at_every_size(height: int, width: int, channels: int) -> None:
    message = refusal(of_shape(height, width, channels))
    assert f"got uint8 of shape (6, {height}, {width}, {channels}), which looks like (N, H, W, C); give " in message
    assert "give images.transpose(0, 3, 1, 2), or, where they are" in message
    checked(of_shape(height, width, channels).transpose(0, 3, 1, 2))


@given(sides, sides)
def test_squares_with_many_channels_last_are_rejected(side: int, channels: int) -> None:
    if side != channels:
        assert "which looks like (N, H, W, C)" in refusal(of_shape(side, side, channels))


@given(st.integers(1, 4), st.integers(1, 40), st.integers(1, 40))
def test_four_channels_first_are_accepted_at_every_size(channels: int, height: int, width: int) -> None:
    assert checked(of_shape(channels, height, width))[0][0].shape == (6, channels, height, width)


@given(sides, sides)
def test_squares_of_any_number_of_channels_are_accepted(channels: int, side: int) -> None:
    checked(of_shape(channels, side, side))


@given(sides, st.integers(1, 40), st.integers(1, 40))
def test_images_of_any_shape_are_accepted_in_one_of_two_orders(channels: int, height: int, width: int) -> None:
    """What the rule refuses by mistake can be given with height and width swapped, as the message says."""
    orders = 0
    for shape in ((channels, height, width), (channels, width, height)):
        try:
            checked(of_shape(*shape))
            orders += 1
        except DataError:
            pass
    assert orders >= 1 or max(height, width) <= 4
